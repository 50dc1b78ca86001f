"""Open a model by its name or its file, with the runtime that the kind of file asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from .. import machine, zoo
from ..contract import ModelSpec
from ..errors import ContractError, InputError
from .base import Session
from .onnxruntime import CPU, OrtSession

Precision = Literal["auto", "fp32", "int8"]


Spec = TypeVar("Spec", bound=ModelSpec)

PRECISIONS: tuple[str, ...] = get_args(Precision)


def open_file(model: str | os.PathLike[str], *, precision: str = "auto", **options: Any) -> Session:
    """The session that the kind of file asks for; see :func:`open_session`.

    For an .xml, whose runtime rounds as it is told, ``precision`` is OpenVINO's: f32 or bf16.
    """
    kind = Path(model).suffix.lower()
    if kind == ".xml":
        from .openvino import OpenVinoSession

        options |= {} if precision == "auto" else {"precision": precision}
        return OpenVinoSession(model, **options)
    if precision not in PRECISIONS:
        raise InputError(f"precision is {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, not {precision!r}")
    if kind == ".engine":
        from .tensorrt.session import TrtSession

        session: Session = TrtSession(model, **options)
    elif kind == ".onnx":
        session = OrtSession(zoo.resolve(model).path, **options)
    else:
        return OrtSession(zoo.resolve(model, precision=_embedded_precision(model, precision, options)).path, **options)
    if precision not in ("auto", session.spec.precision):
        raise InputError(f"{os.fspath(model)} is in {session.spec.precision}, not in {precision}: leave precision out")
    return session


def _embedded_precision(model: str | os.PathLike[str], precision: str, options: Mapping[str, Any]) -> str:
    """Which of an embedded model's files to take: int8 where the processor is fast at it, and runs it."""
    if precision != "auto":
        return precision
    has_int8 = any((entry.name, entry.precision) == (os.fspath(model), "int8") for entry in zoo.list_models())
    on_cpu = options.get("device", "cpu") == "cpu" and options.get("providers") in (None, [CPU], (CPU,))
    return "int8" if has_int8 and on_cpu and machine.fast_int8() else "fp32"


def open_session(model: str | os.PathLike[str] | Session, kind: type[Spec], **options: Any) -> tuple[Session, Spec]:
    """Return a session and its contract, which is of that ``kind``: LandmarkSpec, DetectorSpec or PipelineSpec.

    ``model`` is an embedded model's name, a path to a model file, or a session, which stays as it is.

    A file is an .onnx, a TensorRT .engine or OpenVINO's .xml. ``precision``: of an embedded model, ``auto`` (int8 on a
    CPU that is fast at it, else fp32), ``fp32`` or ``int8``. The other ``options`` are those of :class:`OrtSession`.
    """
    session = open_file(model, **options) if isinstance(model, (str, os.PathLike)) else model
    if not isinstance(session, Session):
        raise InputError(f"a model is a name, a path to a model file or a session, not {type(model).__name__}")
    spec = session.spec
    if not isinstance(spec, kind):
        raise ContractError(f"{spec.name} is a model for {spec.task}; one for {kind.task} is needed")
    return session, spec
