"""The packages that come with an extra, imported when first needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import MissingDependencyError


def load_cv2() -> Any:
    """OpenCV. Raises MissingDependencyError with the line to type."""
    try:
        import cv2

        _ = cv2.imdecode
    except Exception as error:  # one that is half installed raises as it pleases
        raise MissingDependencyError(
            _advice("OpenCV (cv2)", "[cpu-headless] on a server without a display", error)
        ) from error
    return cv2


def load_onnxruntime() -> Any:
    """onnxruntime. Raises MissingDependencyError with the line to type."""
    try:
        import onnxruntime

        _ = onnxruntime.InferenceSession
    except Exception as error:  # as above
        raise MissingDependencyError(_advice("onnxruntime", "[gpu] with an NVIDIA GPU", error)) from error
    return onnxruntime


def load(package: str, extra: str) -> Any:
    """A package of an extra of the same install. Raises MissingDependencyError with the line to type."""
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f'{package.partition(".")[0]} cannot be imported ({error}); type: pip install "facelm-sdk[{extra}]"'
        ) from error


def _advice(what: str, other: str, error: Exception) -> str:
    line = f'type: pip install "facelm-sdk[cpu]" (or {other})'
    if isinstance(error, ModuleNotFoundError) and "." not in (error.name or "."):
        return f"{what} cannot be imported ({error}); {line}"
    return (
        f"{what} is there, but cannot be used ({error}). Run facelm doctor: where its wheels have overwritten each "
        f"other, uninstall all of them; then {line}"
    )
