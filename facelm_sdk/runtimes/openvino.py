"""A session on OpenVINO's IR (.xml with its .bin beside it), for the CPUs where OpenVINO is the faster runtime."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contract import METADATA_KEY, LandmarkSpec, ModelSpec, OutputCheck, Tensor, Tensors, check
from ..errors import ContractError, MissingDependencyError, ModelFileError, ProviderError
from ..files import is_file
from .base import DEFAULTS, Reopened, RuntimeOptions, checked_run, fixed_batch, run_in_parts

logger = logging.getLogger(__name__)

_KEYS = ([METADATA_KEY], ["framework", METADATA_KEY])
"""Where an IR has the contract: as facelm-export writes it, and as OpenVINO keeps an ONNX file's metadata."""

_DTYPES = {"u8": "uint8", "f32": "float32"}


class OpenVinoSession(Reopened):
    """A model opened with OpenVINO.

    ``model`` is the path of an .xml, or of an .onnx, which OpenVINO reads as well. The ``device`` is "cpu" or another
    of OpenVINO's ("gpu", "gpu:1", "npu"); where there is none such, the CPU is taken, with one warning or, with
    ``strict``, a ProviderError instead. ``inference_precision`` is what the CPU computes floats in: bf16 is faster, and
    coarser; a CPU without it takes f32, told in the same way. ``providers`` and ``session_options`` are onnxruntime's
    and must be None. A landmark model exported for a fixed number of crops takes any number here.

    Raises MissingDependencyError, ModelFileError (missing, truncated, not IR), ContractError and InputError.
    """

    def __init__(self, model: str | os.PathLike[str], options: RuntimeOptions = DEFAULTS) -> None:
        super().__init__(model, options)
        self._name = os.fspath(model)
        why = f"onnxruntime's, and {self._name} runs on OpenVINO: leave them out, or give the .onnx"
        options.refuse(["providers", "session_options"], why)
        openvino = load_openvino()
        if not is_file(model):
            raise ModelFileError(f"no model file {self._name}")
        core = openvino.Core()
        target = _device(core, options.device, self._name, strict=options.strict)
        network = self._read(core)
        self._spec = self._read_spec(network)
        found = _tensors(network)
        check(found, self._spec, self._name)
        self._outputs = list(self._spec.tensors.outputs)
        self._check = OutputCheck(self._spec, self._name)
        self._batch = fixed_batch(found, self._spec)
        if self._batch is None and isinstance(self._spec, LandmarkSpec):
            _at_least_one_crop(openvino, network)
        settings = {"PERFORMANCE_HINT": "LATENCY"}
        if target == "CPU":
            precision = _precision(core, options.inference_precision or "f32", self._name, strict=options.strict)
            settings["INFERENCE_PRECISION_HINT"] = precision
            if options.threads is not None:
                settings["INFERENCE_NUM_THREADS"] = str(options.threads)
        self._compiled = self._compile(core, network, target, settings)
        self._requests = threading.local()  # a request serves one thread at a time

    @property
    def spec(self) -> ModelSpec:
        """The model's contract."""
        return self._spec

    @property
    def providers(self) -> tuple[str, ...]:
        """OpenVINO's devices in use."""
        return tuple(f"OpenVINO {device}" for device in self._compiled.get_property("EXECUTION_DEVICES"))

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, in the contract's order, for inputs by name."""
        none = "crops" in feeds and not len(feeds["crops"])
        return run_in_parts(self._run, feeds, 1 if none and self._batch is None else self._batch)

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}

        def infer() -> list[NDArray[Any]]:
            results = self._requests.own.infer(arrays, share_inputs=True)
            return [results[name] for name in self._outputs]

        return checked_run(infer, feeds, self._check)

    def _read(self, core: Any) -> Any:
        try:
            return core.read_model(self._name)
        except (RuntimeError, UnicodeDecodeError) as error:  # a message may quote bytes that are no text
            raise ModelFileError(
                f"{self._name} cannot be opened; it is truncated, not OpenVINO's IR, or its .bin is missing beside it "
                f"({_cause(error)})"
            ) from error

    def _compile(self, core: Any, network: Any, target: str, settings: dict[str, str]) -> Any:
        try:
            return core.compile_model(network, target, settings)
        except (RuntimeError, UnicodeDecodeError) as error:
            raise ModelFileError(f"OpenVINO cannot compile {self._name} for {target} ({_cause(error)})") from error

    def _read_spec(self, network: Any) -> ModelSpec:
        key = next((key for key in _KEYS if network.has_rt_info(key)), None)
        try:
            text = None if key is None else network.get_rt_info(key).value
        except UnicodeDecodeError as error:
            raise ContractError(f"{self._name} has an rt_info that is not UTF-8 ({error})") from error
        if not isinstance(text, str):  # an entry that holds others is no text
            raise ContractError(
                f"{self._name} has no {METADATA_KEY!r} entry in its rt_info; accepted are models written by "
                f"facelm-export --format openvino"
            )
        try:
            return ModelSpec.from_json(text)
        except ContractError as error:
            raise ContractError(f"{self._name}: {error}") from error


def load_openvino() -> Any:
    """OpenVINO. Raises MissingDependencyError with the line to type."""
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError(
            f'OpenVINO cannot be imported ({error}); type: pip install "facelm-sdk[openvino]"'
        ) from error
    return openvino


def _tensors(network: Any) -> Tensors:
    return Tensors(
        *({one.get_any_name(): _tensor(one) for one in ports} for ports in (network.inputs, network.outputs))
    )


def _tensor(port: Any) -> Tensor:
    kind, shape = port.get_element_type().get_type_name(), port.get_partial_shape()
    sizes = tuple(size.get_length() if size.is_static else None for size in shape) if shape.rank.is_static else None
    return Tensor(_DTYPES.get(kind, kind), sizes)


def _at_least_one_crop(openvino: Any, network: Any) -> None:
    """Say of an open number of crops that it is not 0.

    OpenVINO 2026.4 compares open sizes by their bounds. Where those of n * 68 rows and of n crops are the same, it
    takes the first for the second when it moves a scale of int8 past a reshape between them, and cannot compile.
    """
    crops = network.inputs[0]
    network.reshape({crops: [openvino.Dimension(1, -1), *list(crops.get_partial_shape())[1:]]})


def _device(core: Any, device: str, name: str, *, strict: bool) -> str:
    """OpenVINO's name of the device, or of the CPU where it has no such device."""
    wanted, available = device.upper().replace(":", "."), core.available_devices
    if any(found == wanted or found.startswith(f"{wanted}.") for found in available):
        return wanted
    _fall_back(f"OpenVINO has no device {device!r} here ({', '.join(available)}); {name} runs on CPU", strict=strict)
    return "CPU"


def _precision(core: Any, precision: str, name: str, *, strict: bool) -> str:
    """The precision, or f32 where the CPU would have to emulate it, which takes several times as long."""
    if precision == "f32" or precision.upper() in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return precision
    _fall_back(f"this CPU does not compute in {precision}; {name} runs in f32", strict=strict)
    return "f32"


def _fall_back(message: str, *, strict: bool) -> None:
    if strict:
        raise ProviderError(message)
    logger.warning(message)


def _cause(error: Exception) -> str:
    """The last line of an OpenVINO error; those before it tell where in its sources it was raised."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
