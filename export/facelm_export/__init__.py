"""From a PyTorch landmark network to one self-describing ONNX file, proven against PyTorch in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporter import export
    from .job import Exported
    from .pipeline import export_pipeline

__all__ = ["Exported", "export", "export_pipeline"]


def __getattr__(name: str) -> Any:  # torch loads when something is exported, not for --help
    if name in __all__:
        from . import exporter, job, pipeline

        return {
            "Exported": job.Exported,
            "export": exporter.export,
            "export_pipeline": pipeline.export_pipeline,
        }[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
