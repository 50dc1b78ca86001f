"""The packages that come with the ``train`` extra, imported when first needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from facelm_sdk.errors import MissingDependencyError


def load(module: str, work: str) -> Any:
    """A module of the ``train`` extra. Raises MissingDependencyError with the line to type."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingDependencyError(
            f'{work} needs {package} ({error}); type: pip install "facelm-sdk[train]"'
        ) from error
