"""The files of format ``engine``: a TensorRT engine, the card that says what it is for, and TensorRT's timing cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from facelm_sdk.runtimes.tensorrt.api import load_tensorrt
from facelm_sdk.runtimes.tensorrt.build import build_engine, check_buildable, read_timing

if TYPE_CHECKING:
    from facelm_sdk.contract import ModelSpec

    from ..job import ExportJob


def require() -> None:
    """Raise MissingDependencyError, with the line to type, unless a TensorRT that is new enough can be imported."""
    load_tensorrt()


def check(spec: ModelSpec) -> None:
    """Raise InputError unless a model of this contract can become an engine."""
    check_buildable(spec)


def files(job: ExportJob) -> tuple[dict[Path, bytes], dict[str, Any]]:
    """The files by their paths, and what the report should say beyond the usual. Errors: see build_engine."""
    job.progress("building the engine")
    built = build_engine(
        job.data,
        job.spec,
        max_batch=job.max_batch,
        timing=read_timing(job.path),
        rebuild=job.command or None,
        progress=lambda done: job.progress(f"building the engine, {done:.0%}"),
    )
    card = built.card
    facts = {
        "built_with": f"{card.flavour} {card.version}",
        "built_for": ", ".join(card.compute_capabilities) if card.gpu is None else card.gpu,
        "crops": card.batch or f"1 to {card.max_batch}",
        "source_sha256": card.source_sha256,
        "engine_parity": "the figures of parity are the ONNX graph's; the engine was not run",
    }
    return built.files(job.path), {"engine": facts}
