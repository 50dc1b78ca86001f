"""The packages that come with an extra, imported when first needed."""

from __future__ import annotations

from functools import cache
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
    _quieten(onnxruntime)
    return onnxruntime


def load(package: str, extra: str) -> Any:
    """A package of an extra of the same install. Raises MissingDependencyError with the line to type."""
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f'{package.partition(".")[0]} cannot be imported ({error}); type: pip install "facelm-sdk[{extra}]"'
        ) from error


@cache
def _quieten(onnxruntime: Any) -> None:
    """Leave warnings, such as of GPUs that a server has not, out of what onnxruntime writes to stderr."""
    if hasattr(onnxruntime, "set_default_logger_severity"):
        onnxruntime.set_default_logger_severity(3)


def has_av() -> bool:
    """Whether PyAV can be imported."""
    try:
        load_av()
    except MissingDependencyError:
        return False
    return True


def load_av() -> Any:
    """PyAV. Raises MissingDependencyError with the line to type."""
    try:
        import av
    except Exception as error:  # one whose libraries are another's raises as it pleases
        line = 'type: pip install "facelm-sdk[video]"'
        raise MissingDependencyError(f"PyAV cannot be imported ({error}); {line}") from error
    return av


def load_pillow() -> Any:
    """PIL.Image of a Pillow that reads AVIF. Raises MissingDependencyError with the line to type."""
    try:
        from PIL import Image, features

        if features.check("avif"):
            return Image
        found = "this Pillow has no AVIF"
    except ImportError as error:
        found = str(error)
    raise MissingDependencyError(f'AVIF needs Pillow 11.3 or newer ({found}); type: pip install "facelm-sdk[heif]"')


def load_pillow_heif() -> Any:
    """pillow_heif. Raises MissingDependencyError with the line to type."""
    try:
        import pillow_heif
    except ImportError as error:
        raise MissingDependencyError(
            f'HEIC needs pillow-heif ({error}); type: pip install "facelm-sdk[heif]"'
        ) from error
    return pillow_heif


def _advice(what: str, other: str, error: Exception) -> str:
    line = f'type: pip install "facelm-sdk[cpu]" (or {other})'
    if isinstance(error, ModuleNotFoundError) and "." not in (error.name or "."):
        return f"{what} cannot be imported ({error}); {line}"
    return (
        f"{what} is there, but cannot be used ({error}). Run facelm doctor: where its wheels have overwritten each "
        f"other, uninstall all of them; then {line}"
    )
