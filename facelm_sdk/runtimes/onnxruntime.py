"""A model file opened with onnxruntime: its contract read and checked, its provider never silently another."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .._optional import load_onnxruntime
from ..contract import (
    FORMAT_VERSION,
    METADATA_KEY,
    DetectorSpec,
    ModelSpec,
    OutputCheck,
    Tensor,
    Tensors,
    WithLandmarks,
    check,
)
from ..errors import ContractError, InputError, ModelFileError, ProviderError
from ..files import is_file
from .base import (
    DEFAULTS,
    PROVIDERS,
    Provider,
    Reopened,
    RuntimeOptions,
    checked_run,
    first_line,
    fixed_batch,
    run_in_parts,
)
from .foreign import ACCEPTED, Adapter, adapter_of

logger = logging.getLogger(__name__)


CPU = PROVIDERS["cpu"]
ERROR, FATAL = 3, 4
"""Severities of onnxruntime's log, and more."""

SMALL_NETWORK = 0.5
"""Billions of multiply-adds a crop up to which a network is small: one thread runs it as fast as several would."""
SMALL_FILE = 16 << 20
"""Bytes of a small network's fp32 file; half as many in fp16 and int8. For a contract that does not say its size."""


INSTALLS = {
    "CUDAExecutionProvider": '; type: pip uninstall onnxruntime; pip install "facelm-sdk[gpu]"',
    "TensorrtExecutionProvider": '; type: pip uninstall onnxruntime; pip install "facelm-sdk[gpu]" tensorrt',
    "OpenVINOExecutionProvider": "; type: pip uninstall onnxruntime; pip install onnxruntime-openvino",
    "DmlExecutionProvider": "; on Windows type: pip uninstall onnxruntime; pip install onnxruntime-directml",
    "CoreMLExecutionProvider": "; the onnxruntime of macOS has it",
}
"""What to do where an onnxruntime is without a provider."""


class OrtSession(Reopened):
    """A model opened with onnxruntime.

    ``model`` is a path or the file's bytes. A provider that cannot be used is one warning with the cause, or a
    ProviderError with ``strict``. Without ``threads`` (onnxruntime's intra-op count) and ``session_options``, a
    detector and a network of up to SMALL_NETWORK multiply-adds run on one thread, larger ones on all cores. A landmark
    model exported for a fixed number of crops takes any number here. Several threads may use one session; other
    processes get one of their own by pickling. Files without a contract are taken where they are of the kinds that
    :mod:`facelm_sdk.runtimes.foreign` knows.

    Raises MissingDependencyError, ModelFileError (missing, truncated, not ONNX), ContractError and InputError.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        options: RuntimeOptions = DEFAULTS,
    ) -> None:
        options.refuse(["inference_precision"], "is OpenVINO's; onnxruntime computes as the file says: leave it out")
        ort = load_onnxruntime()
        super().__init__(model, options)
        self._name = "the model" if isinstance(model, bytes) else os.fspath(model)
        if not isinstance(model, bytes) and not is_file(model):
            raise ModelFileError(f"no model file {self._name}")
        wanted = _providers(options)
        size = len(model) if isinstance(model, bytes) else Path(model).stat().st_size
        guess = size <= SMALL_FILE
        self._session, problems = self._open(ort, model, wanted, _session_options(ort, options, small=guess))
        self._adapter: Adapter | None = None
        self._spec = self._read_spec(model)
        chosen = options.threads is None and options.session_options is None and self._adapter is None
        if chosen and (small := is_small(self._spec, size)) != guess:
            self._session, problems = self._open(ort, model, wanted, _session_options(ort, options, small=small))
        problems += [
            f"{name} is not in use" for name in map(_name, wanted) if not problems and name not in self.providers
        ]
        if problems:
            message = f"{'; '.join(problems)}; {self._name} runs on {', '.join(self.providers)}"
            if options.strict:
                raise ProviderError(message)
            logger.warning(message)
        found = tensors_of(self._session, self._name)
        self._outputs = list(found.outputs) if self._adapter else list(self._spec.tensors.outputs)
        self._check = OutputCheck(self._spec, self._name)
        self._batch = None
        if self._adapter is None:
            check(found, self._spec, self._name)
            self._batch = fixed_batch(found, self._spec)

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
        return run_in_parts(self._run, feeds, self._batch)

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        return checked_run(lambda: self._outputs_of(feeds), feeds, self._check)

    def _outputs_of(self, feeds: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        if self._adapter is None:
            return self._session.run(self._outputs, dict(feeds))  # type: ignore[no-any-return]
        name = self._session.get_inputs()[0].name
        return self._adapter.run(lambda pixels: self._session.run(self._outputs, {name: pixels}), feeds)

    def _open(self, ort: Any, model: Any, wanted: list[Provider], options: Any) -> tuple[Any, list[str]]:
        """The onnxruntime session, on the providers that work, and what kept the others from working."""
        available = ort.get_available_providers()
        problems = [
            f"{name} is not in this onnxruntime ({', '.join(available)}){INSTALLS.get(name, '')}"
            for name in map(_name, wanted)
            if name not in available
        ]
        usable = [provider for provider in wanted if _name(provider) in available]
        source = model if isinstance(model, bytes) else os.fspath(model)
        if any(_name(provider) != CPU for provider in usable):
            try:
                with loading_gpu(ort):
                    # onnxruntime's own fallback prints to stdout and hides the cause.
                    return ort.InferenceSession(source, options, providers=usable, enable_fallback=0), problems
            except Exception as error:
                failed = ", ".join(_name(provider) for provider in usable if _name(provider) != CPU)
                problems.append(f"{failed} cannot be used ({first_line(error)})")
        try:
            return ort.InferenceSession(source, options, providers=[CPU], enable_fallback=0), problems
        except Exception as error:
            raise ModelFileError(
                f"{self._name} cannot be opened; it is truncated or not an ONNX model ({first_line(error)})"
            ) from error

    def _read_spec(self, model: str | os.PathLike[str] | bytes) -> ModelSpec:
        text = metadata_of(self._session, self._name).get(METADATA_KEY)
        if text is None:
            data = model if isinstance(model, bytes) else Path(model).read_bytes()
            self._adapter = adapter_of(tensors_of(self._session, self._name), Path(self._name).stem, data)
            if self._adapter is not None:
                return self._adapter.spec
            raise ContractError(
                f"{self._name} has no {METADATA_KEY!r} metadata; accepted are models exported by facelm-export with "
                f"format_version {FORMAT_VERSION}, and {ACCEPTED}"
            )
        try:
            return ModelSpec.from_json(text)
        except ContractError as error:
            raise ContractError(f"{self._name}: {error}") from error


@contextmanager
def loading_gpu(ort: Any) -> Iterator[None]:
    """Load the libraries of NVIDIA's wheels first, where this onnxruntime can, and keep its own log off stderr.

    What fails is in the errors of opening a session, or in its providers.
    """
    quietly = getattr(ort, "set_default_logger_severity", lambda severity: None)
    quietly(FATAL)
    try:
        if hasattr(ort, "preload_dlls"):
            with redirect_stdout(StringIO()):  # it prints what it does not find
                ort.preload_dlls()
        yield
    finally:
        quietly(ERROR)


def _providers(options: RuntimeOptions) -> list[Provider]:
    if options.providers is not None:
        return list(options.providers)
    if options.device == "cpu":
        return [CPU]
    match = re.fullmatch(r"cuda(?::(\d+))?", options.device, re.ASCII)
    if match is None:
        raise InputError(
            f"device is cpu, cuda or cuda:<index>, not {options.device!r}; for others give providers (--provider): "
            f"{', '.join(PROVIDERS)}"
        )
    return [("CUDAExecutionProvider", {"device_id": int(match[1] or 0)}), CPU]


def metadata_of(session: Any, name: str) -> dict[str, str]:
    """Return the metadata of an onnxruntime session. Raises ContractError where it is not text."""
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise ContractError(f"{name} has metadata that is not UTF-8 ({error})") from error


def tensors_of(session: Any, name: str) -> Tensors:
    """Return the inputs and outputs of an onnxruntime session. Raises ContractError where their names are not text."""
    try:
        inputs, outputs = (
            {node.name: Tensor(_dtype(node.type), _shape(node.shape)) for node in nodes}
            for nodes in (session.get_inputs(), session.get_outputs())
        )
    except UnicodeDecodeError as error:
        raise ContractError(f"{name} has inputs or outputs whose names are not UTF-8 ({error})") from error
    return Tensors(inputs, outputs)


def _dtype(kind: str) -> str:
    """Return numpy's name of a type that onnxruntime calls tensor(float) or the like."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _shape(shape: Sequence[int | str | None] | None) -> tuple[int | str | None, ...] | None:
    return tuple(shape) if shape else None  # none where shape inference gave up, which looks like a scalar's


def _name(provider: Provider) -> str:
    return provider if isinstance(provider, str) else provider[0]


def is_small(spec: ModelSpec, size: int) -> bool:
    """Return whether one thread is enough for a model: by its contract, else by the ``size`` of its file in bytes."""
    if isinstance(spec, DetectorSpec):
        return True
    if isinstance(spec, WithLandmarks) and spec.multiply_adds is not None:
        return spec.multiply_adds <= SMALL_NETWORK
    return size <= (SMALL_FILE if spec.precision == "fp32" else SMALL_FILE // 2)


def _session_options(ort: Any, wanted: RuntimeOptions, *, small: bool) -> Any:
    if wanted.session_options is not None:
        if not isinstance(wanted.session_options, ort.SessionOptions):
            raise InputError(f"session_options is onnxruntime.SessionOptions, not {wanted.session_options!r}")
        return wanted.session_options
    options = ort.SessionOptions()
    if "DmlExecutionProvider" in map(_name, wanted.providers or ()):
        options.enable_mem_pattern = False  # which DirectML refuses
    options.log_severity_level = ERROR  # a fallback is told by this module, once
    # Idle threads would take the cores from whoever needs them, this process's other models among them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if wanted.threads is not None or small:
        options.intra_op_num_threads = int(wanted.threads or 1)
    return options
