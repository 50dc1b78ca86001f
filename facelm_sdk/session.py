"""Sessions: a model file opened for running, its contract read and checked, its provider never silently another."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from . import cpu, zoo
from ._optional import load_onnxruntime
from .errors import ContractError, InputError, ModelFileError, ProviderError
from .spec import FORMAT_VERSION, METADATA_KEY, ModelSpec, Task

logger = logging.getLogger(__name__)

Provider = str | tuple[str, dict[str, Any]]
"""An execution provider as onnxruntime takes it: its name, or its name and options."""

_CPU = "CPUExecutionProvider"

SMALL_NETWORK = 0.5
"""Billions of multiply-adds a crop up to which a network is small: one thread runs it as fast as several would."""
SMALL_FILE = 16 << 20
"""Bytes of a small network's fp32 file; half as many in fp16 and int8. For a contract that does not say its size."""


@runtime_checkable
class Session(Protocol):
    """A model ready to run. Detector and Landmarker take anything that has these three."""

    @property
    def spec(self) -> ModelSpec:
        """The model's contract."""

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, first choice first."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, in the contract's order, for inputs by name."""


class OrtSession:
    """A model opened with onnxruntime.

    ``model`` is a path or the file's bytes. ``device`` is "cpu", "cuda" or "cuda:<index>"; ``providers``, as in
    onnxruntime, overrides it. A provider that cannot be used is one warning with the cause, or a ProviderError with
    ``strict=True``. ``threads`` is onnxruntime's intra-op count; for finer control give ``session_options``
    (onnxruntime.SessionOptions) instead. Without them, a detector and a network of up to SMALL_NETWORK multiply-adds
    run on one thread, larger ones on all cores. A landmark model exported for a fixed number of crops takes any number
    here.

    Raises MissingDependencyError, ModelFileError (missing, truncated, not ONNX) and ContractError.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        device: str = "cpu",
        providers: Sequence[Provider] | None = None,
        strict: bool = False,
        threads: int | None = None,
        session_options: Any = None,
    ) -> None:
        ort = load_onnxruntime()
        self._name = "the model" if isinstance(model, bytes) else os.fspath(model)
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise ModelFileError(f"no model file {self._name}")
        wanted = _providers(device, providers)
        size = len(model) if isinstance(model, bytes) else Path(model).stat().st_size
        guess = size <= SMALL_FILE
        self._session, problems = self._open(ort, model, wanted, _options(ort, threads, session_options, small=guess))
        self._spec = self._read_spec()
        if threads is None and session_options is None and (small := is_small(self._spec, size)) != guess:
            self._session, problems = self._open(ort, model, wanted, _options(ort, None, None, small=small))
        problems += [
            f"{name} is not in use" for name in map(_name, wanted) if not problems and name not in self.providers
        ]
        if problems:
            message = f"{'; '.join(problems)}; {self._name} runs on {', '.join(self.providers)}"
            if strict:
                raise ProviderError(message)
            logger.warning(message)
        self._outputs = check_signature(self._session, self._spec, self._name)
        batch = self._session.get_inputs()[0].shape[0]
        self._batch = batch if self._spec.task == "landmarks" and isinstance(batch, int) else None

    @property
    def spec(self) -> ModelSpec:
        """The model's contract."""
        return self._spec

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, first choice first."""
        return tuple(self._session.get_providers())

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, in the contract's order, for inputs by name."""
        if self._batch is not None:
            return run_in_parts(self._run, feeds["crops"], self._batch)
        return self._run(feeds)

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        return list(self._session.run(self._outputs, dict(feeds)))

    def _open(self, ort: Any, model: Any, wanted: list[Provider], options: Any) -> tuple[Any, list[str]]:
        """The onnxruntime session, on the providers that work, and what kept the others from working."""
        available = ort.get_available_providers()
        problems = [
            f"{_name(provider)} is not in this onnxruntime ({', '.join(available)})"
            for provider in wanted
            if _name(provider) not in available
        ]
        usable = [provider for provider in wanted if _name(provider) in available]
        source = model if isinstance(model, bytes) else os.fspath(model)
        if any(_name(provider) != _CPU for provider in usable):
            try:
                # onnxruntime's own fallback prints to stdout and hides the cause.
                return ort.InferenceSession(source, options, providers=usable, enable_fallback=0), problems
            except Exception as error:
                failed = ", ".join(_name(provider) for provider in usable if _name(provider) != _CPU)
                problems.append(f"{failed} cannot be used ({_first_line(error)})")
        try:
            return ort.InferenceSession(source, options, providers=[_CPU], enable_fallback=0), problems
        except Exception as error:
            raise ModelFileError(
                f"{self._name} cannot be opened; it is truncated or not an ONNX model ({_first_line(error)})"
            ) from error

    def _read_spec(self) -> ModelSpec:
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise ContractError(
                f"{self._name} has no {METADATA_KEY!r} metadata; accepted are models exported by facelm-export with "
                f"format_version {FORMAT_VERSION}"
            )
        try:
            return ModelSpec.from_json(text)
        except ContractError as error:
            raise ContractError(f"{self._name}: {error}") from error


def run_in_parts(
    run: Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]],
    crops: NDArray[Any],  # (n, S, S, 3)
    batch: int,
) -> list[NDArray[Any]]:
    """The outputs of a model of fixed batch: the crops in parts of ``batch``, the last one filled up with black."""
    runs = max(1, -(-len(crops) // batch))  # without a crop, one for the outputs' shapes
    padded = np.zeros((runs * batch, *crops.shape[1:]), crops.dtype)
    padded[: len(crops)] = crops
    parts = [run({"crops": part}) for part in np.split(padded, runs)]
    return [np.concatenate(part)[: len(crops)] for part in zip(*parts, strict=True)]


Precision = Literal["auto", "fp32", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def open_file(model: str | os.PathLike[str], *, precision: str = "auto", **options: Any) -> Session:
    """The session that the kind of file asks for; see :func:`open_session`.

    For an .xml, whose runtime rounds as it is told, ``precision`` is OpenVINO's: f32 or bf16.
    """
    kind = Path(model).suffix.lower()
    if kind == ".xml":
        from .openvino_session import OpenVinoSession

        options |= {} if precision == "auto" else {"precision": precision}
        return OpenVinoSession(model, **options)
    if precision not in PRECISIONS:
        raise InputError(f"precision is {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, not {precision!r}")
    if kind == ".engine":
        from .trt_session import TrtSession

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
    on_cpu = options.get("device", "cpu") == "cpu" and options.get("providers") in (None, [_CPU], (_CPU,))
    return "int8" if has_int8 and on_cpu and cpu.fast_int8() else "fp32"


def open_session(model: str | os.PathLike[str] | Session, task: Task, **options: Any) -> Session:
    """A session for ``task``: an embedded model's name, a path to a model file, or a session as it is.

    A file is an .onnx, a TensorRT .engine or OpenVINO's .xml. ``precision``: of an embedded model, ``auto`` (int8 on a
    CPU that is fast at it, else fp32), ``fp32`` or ``int8``. The other ``options`` are those of :class:`OrtSession`.
    """
    session = open_file(model, **options) if isinstance(model, (str, os.PathLike)) else model
    if not isinstance(session, Session):
        raise InputError(f"a model is a name, a path to a model file or a session, not {type(model).__name__}")
    if session.spec.task != task:
        raise ContractError(f"{session.spec.name} is a model for {session.spec.task}; one for {task} is needed")
    return session


def _providers(device: str, providers: Sequence[Provider] | None) -> list[Provider]:
    if providers is not None:
        if isinstance(providers, str) or not providers:
            raise InputError(f"providers is a list such as ['{_CPU}'], as in onnxruntime; got {providers!r}")
        return list(providers)
    if device == "cpu":
        return [_CPU]
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise InputError(f"device is cpu, cuda or cuda:<index>, not {device!r}; for others give providers=[...]")
    return [("CUDAExecutionProvider", {"device_id": int(match[1] or 0)}), _CPU]


def _name(provider: Provider) -> str:
    return provider if isinstance(provider, str) else provider[0]


def is_small(spec: ModelSpec, size: int) -> bool:
    """Return whether one thread is enough for a model: by its contract, else by the ``size`` of its file in bytes."""
    if spec.task == "detection":
        return True
    if spec.multiply_adds is not None:
        return spec.multiply_adds <= SMALL_NETWORK
    return size <= (SMALL_FILE if spec.precision == "fp32" else SMALL_FILE // 2)


def _options(ort: Any, threads: int | None, session_options: Any, *, small: bool) -> Any:
    if session_options is not None:
        if threads is not None:
            raise InputError("give threads or session_options, not both (session_options.intra_op_num_threads)")
        return session_options
    options = ort.SessionOptions()
    options.log_severity_level = 3  # a fallback is told by this module, once
    # Idle threads would take the cores from whoever needs them, this process's other models among them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None and threads < 1:
        raise InputError(f"threads is at least 1, not {threads}")
    if threads is not None or small:
        options.intra_op_num_threads = threads or 1
    return options


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_Signature = dict[str, tuple[str, tuple[int | None, ...]]]


def signature(spec: ModelSpec) -> tuple[_Signature, _Signature]:
    """Names, element types and shapes of the inputs and outputs that the contract promises; None is any size."""
    uint8, float32 = "tensor(uint8)", "tensor(float)"
    faces: _Signature = {"boxes": (float32, (None, 4)), "scores": (float32, (None,)), "kps": (float32, (None, 5, 2))}
    if spec.task == "detection":
        return {"image": (uint8, (1, None, None, 3))}, faces
    assert spec.crop is not None
    size, points = spec.crop.size, spec.num_landmarks
    outputs: _Signature = {"landmarks": (float32, (None, points, 2))}
    if spec.task == "pipeline":
        scores: _Signature = {"landmark_scores": (float32, (None, points))} if spec.has_scores else {}
        return {"image": (uint8, (None, None, 3))}, {**faces, **outputs, **scores}
    if spec.has_scores:
        outputs["scores"] = (float32, (None, points))
    return {"crops": (uint8, (None, size, size, 3))}, outputs


def check_signature(session: Any, spec: ModelSpec, name: str) -> list[str]:
    """Raise ContractError unless the graph has the contract's inputs and outputs; returns the outputs' names."""
    inputs, outputs = signature(spec)
    for kind, wanted, nodes in (("inputs", inputs, session.get_inputs()), ("outputs", outputs, session.get_outputs())):
        found = {node.name: (node.type, tuple(node.shape or ())) for node in nodes}
        agrees = found.keys() == wanted.keys() and all(
            _agrees(found[key], wanted[key], is_input=kind == "inputs", may_be_fixed=spec.task == "landmarks")
            for key in wanted
        )
        if not agrees:
            raise ContractError(f"{name} has {kind} {_text(found)}; its contract says {_text(wanted)}")
    return list(outputs)


def _agrees(
    found: tuple[str, tuple[Any, ...]],
    wanted: tuple[str, tuple[int | None, ...]],
    *,
    is_input: bool,
    may_be_fixed: bool,
) -> bool:
    """Whether type and shape agree.

    An input leaves open what the contract does, but for the number of crops, which may be fixed; an output may be less
    precise.
    """
    (found_type, found_shape), (wanted_type, wanted_shape) = found, wanted
    if found_type != wanted_type:
        return False
    if not found_shape and not is_input:  # shape inference gave up
        return True
    return len(found_shape) == len(wanted_shape) and all(
        (may_be_fixed or not is_input or not isinstance(size, int))
        if want is None
        else (not isinstance(size, int) or size == want)
        for size, want in zip(found_shape, wanted_shape, strict=True)
    )


def _text(signature: Mapping[str, tuple[str, tuple[Any, ...]]]) -> str:
    return ", ".join(
        f"{name} {kind} ({', '.join('?' if size is None else str(size) for size in shape)})"
        for name, (kind, shape) in signature.items()
    )
