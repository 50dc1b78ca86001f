"""The packages that come with an extra, imported when first needed."""

from __future__ import annotations

from typing import Any

from .errors import MissingDependencyError


def load_cv2() -> Any:
    """OpenCV. Raises MissingDependencyError with the line to type."""
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            _advice("OpenCV (cv2)", "[cpu-headless] on a server without a display", error)
        ) from error
    return cv2


def load_onnxruntime() -> Any:
    """onnxruntime. Raises MissingDependencyError with the line to type."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(_advice("onnxruntime", "[gpu] with an NVIDIA GPU", error)) from error
    return onnxruntime


def _advice(what: str, other: str, error: ImportError) -> str:
    return f'{what} cannot be imported ({error}); type: pip install "facelm-sdk[cpu]" (or {other})'
