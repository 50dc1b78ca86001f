"""A landmark model's engine, opened or, where it is missing or does not fit, built once from the ONNX file."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from ... import zoo
from ...errors import ContractError, EngineError, InputError, ModelFileError
from ...files import check_place, write_files
from ..base import RuntimeOptions
from ..onnxruntime import OrtSession
from . import api
from .build import MAX_BATCH, PORTABLE, build_engine, read_timing
from .session import TrtSession
from .sidecar import EngineCard, covers

logger = logging.getLogger(__name__)


def open_engine(model: str | os.PathLike[str], engine: str | os.PathLike[str], *, device: str = "cuda:0") -> TrtSession:
    """A session on the TensorRT engine ``engine`` of ``model``, an .onnx or an embedded landmark model's name.

    Where there is no engine, or one of another TensorRT, kind of GPU or ONNX file, it is built and written there, with
    a line in the log and a progress bar, for 1 to 16 crops a run, or as many as the engine before it took.

    Raises EngineError (no GPU; the engine cannot be built, or the new one not opened), MissingDependencyError,
    OutputError (the place cannot be written) and what opening ``model`` does.
    """
    if not isinstance(engine, (str, os.PathLike)) or Path(engine).suffix.lower() != ".engine":
        raise InputError(f"engine is a path that ends in .engine, not {engine!r}")
    path = Path(engine)
    options = RuntimeOptions(device=device)
    source = zoo.resolve(model).path
    gpu = api.Cuda(device)  # without one, a new engine would not help
    try:
        return TrtSession(path, options, source=source)
    except (EngineError, ModelFileError, ContractError) as error:
        reason = str(error).partition(" Rebuild it:")[0]
    _build(source, path, device, gpu, reason)
    return TrtSession(path, options, source=source)


def _build(source: Path, path: Path, device: str, gpu: api.Cuda, reason: str) -> None:
    check_place(path)
    trt = api.load_tensorrt()
    name = f"{trt.__name__} {trt.__version__}"
    logger.warning("%s; building it from %s with %s, once, which can take minutes", reason, source, name)
    max_batch = MAX_BATCH
    with contextlib.suppress(ModelFileError, ContractError):
        max_batch = EngineCard.read(path).max_batch
    ahead = trt.__name__ == "tensorrt_rtx"
    targets = (gpu.capability,) if ahead and not covers(PORTABLE, gpu.capability) else ()

    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"building {path.name}", total=1.0)
        built = build_engine(
            source.read_bytes(),
            OrtSession(source).spec,
            max_batch=max_batch,
            device=device,
            compute_capabilities=targets,
            timing=read_timing(path),
            progress=lambda done: bar.update(task, completed=done),
        )
    write_files(built.files(path))
