"""From a PyTorch landmark network to one self-describing ONNX file, proven against PyTorch in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporter import Exported, export

__all__ = ["Exported", "export"]


def __getattr__(name: str) -> Any:  # torch loads when something is exported, not for --help
    if name in __all__:
        from . import exporter

        return getattr(exporter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
