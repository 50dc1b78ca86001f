"""Open a model by its name or its file, with the runtime that the kind of file asks for."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Literal, TypeVar, get_args

from .. import machine, zoo
from ..contract import ModelSpec
from ..errors import ContractError, InputError
from .base import DEFAULTS, RuntimeOptions, Session
from .onnxruntime import CPU, OrtSession

logger = logging.getLogger(__name__)

_noticed: list[str] = []
"""The model for research use that the log has told of, once a process."""

Variant = Literal["auto", "fp32", "int8"]
"""Which file of an embedded model: int8 where the processor is fast at it, or one of them."""

VARIANTS: tuple[str, ...] = get_args(Variant)

Spec = TypeVar("Spec", bound=ModelSpec)


def open_session(
    model: str | os.PathLike[str] | Session,
    kind: type[Spec],
    options: RuntimeOptions = DEFAULTS,
    *,
    variant: Variant = "auto",
) -> tuple[Session, Spec]:
    """Return a session and its contract, which is of that ``kind``: LandmarkSpec, DetectorSpec or PipelineSpec.

    ``model`` is an embedded model's name, a path to a model file, or a session, which stays as it is; the others: see
    :func:`open_file`. Raises ContractError for a model of another task, InputError and what opening a file does.
    """
    session = open_file(model, options, variant=variant) if isinstance(model, (str, os.PathLike)) else model
    if not isinstance(session, Session):
        raise InputError(f"a model is a name, a path to a model file or a session, not {type(model).__name__}")
    spec = session.spec
    if not isinstance(spec, kind):
        raise ContractError(f"{spec.name} is a model for {spec.task}; one for {kind.task} is needed")
    return session, spec


def open_file(
    model: str | os.PathLike[str], options: RuntimeOptions = DEFAULTS, *, variant: Variant = "auto"
) -> Session:
    """Return the session that the kind of file asks for: an .onnx, a TensorRT .engine or OpenVINO's .xml.

    ``variant`` chooses among the files of an embedded model's name: ``auto`` (int8 on a CPU that is fast at it, else
    fp32), ``fp32`` or ``int8``. Of a path it is ``auto``, or what the file is in: InputError else.
    """
    if not isinstance(variant, str) or variant not in VARIANTS:
        raise InputError(f"variant is {', '.join(VARIANTS[:-1])} or {VARIANTS[-1]}, not {variant!r}")
    session = _open(model, options, variant)
    if options.licence_notice and not _noticed and "research" in session.spec.licence.lower():
        _noticed.append(session.spec.name)
        logger.warning(
            "%s: %s (facelm models --long; licence_notice=False, or --quiet, leaves this line out)",
            *(session.spec.name, session.spec.licence),
        )
    return session


def _open(model: str | os.PathLike[str], options: RuntimeOptions, variant: Variant) -> Session:
    kind = Path(model).suffix.lower()
    if kind not in (".xml", ".engine", ".onnx"):
        return OrtSession(zoo.resolve(model, variant=_embedded_variant(model, variant, options)).path, options)
    session = _open_path(model, kind, options)
    if variant not in ("auto", session.spec.precision):
        raise InputError(f"{os.fspath(model)} is in {session.spec.precision}, not in {variant}: leave variant out")
    return session


def _open_path(model: str | os.PathLike[str], kind: str, options: RuntimeOptions) -> Session:
    if kind == ".xml":
        from .openvino import OpenVinoSession

        return OpenVinoSession(model, options)
    if kind == ".engine":
        from .tensorrt.session import TrtSession

        return TrtSession(model, options)
    return OrtSession(zoo.resolve(model).path, options)


def _embedded_variant(model: str | os.PathLike[str], variant: Variant, options: RuntimeOptions) -> str:
    """Return which of an embedded model's files to take: int8 where the processor is fast at it, and runs it."""
    if variant != "auto":
        return variant
    has_int8 = any((entry.name, entry.precision) == (os.fspath(model), "int8") for entry in zoo.list_models())
    on_cpu = options.device == "cpu" if options.providers is None else options.providers == (CPU,)
    return "int8" if has_int8 and on_cpu and machine.fast_int8() else "fp32"


def renamed(variant: Variant, precision: Variant | None) -> Variant:
    """Return ``variant``, or ``precision``, which is what callers called it before, with a DeprecationWarning."""
    if precision is None:
        return variant
    warnings.warn("precision= is called variant= now: it names an embedded file", DeprecationWarning, stacklevel=3)
    return precision
