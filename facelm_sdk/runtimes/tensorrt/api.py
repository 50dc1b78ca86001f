"""What building and running engines share: TensorRT or TensorRT for RTX (one Python API), its log, and the GPU."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from ...contract import Tensor
from ...errors import EngineError, InputError, MissingDependencyError

logger = logging.getLogger(__name__)

OLDEST = {"tensorrt": (10, 0), "tensorrt_rtx": (1, 2)}
"""The flavours, the first one preferred, and the oldest release of each that has what is used here."""

_DTYPES = {"UINT8": "uint8", "FLOAT": "float32", "HALF": "float16"}


def load_tensorrt(flavour: str | None = None) -> Any:
    """The module ``tensorrt`` or ``tensorrt_rtx``: the one named, else the first that is installed.

    Raises MissingDependencyError, with the line to type, where there is none or it is too old.
    """
    causes = []
    for name in [flavour] if flavour else OLDEST:
        try:
            trt = import_module(name)
        except (ImportError, OSError, RuntimeError) as error:  # tensorrt's wheel raises what its libraries do
            causes.append(f"{name}: {error}")
            continue
        _check_version(trt)
        return trt
    lines = [f"pip install {package(name)}" for name in ([flavour] if flavour else OLDEST)]
    raise MissingDependencyError(
        f"{' and '.join([flavour] if flavour else OLDEST)} cannot be imported ({'; '.join(causes)}); type: "
        f"{' (NVIDIA data-centre and any other GPUs), or: '.join(lines)}"
        f"{'' if flavour else ' (GeForce and RTX GPUs; builds on a machine without one, too)'}"
    )


def package(flavour: str) -> str:
    """The name that pip knows a flavour by."""
    return flavour.replace("_", "-")


def _check_version(trt: Any) -> None:
    name, oldest = trt.__name__, OLDEST[trt.__name__]
    found = tuple(int(part) for part in re.findall(r"\d+", trt.__version__)[:2])
    if found < oldest:
        wanted = ".".join(map(str, oldest))
        raise MissingDependencyError(
            f"{name} {trt.__version__} is too old; {wanted} or newer is needed: "
            f'type: pip install -U "{package(name)}>={wanted}"'
        )


def make_log(trt: Any) -> Any:
    """TensorRT's log as this package's; its ``errors`` are the error messages so far, the first one first."""
    severity = trt.ILogger
    errors = (severity.INTERNAL_ERROR, severity.ERROR)
    levels = {severity.WARNING: logging.INFO, severity.INFO: logging.DEBUG, severity.VERBOSE: logging.DEBUG}

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in errors:
                self.errors.append(message)
            logger.log(levels.get(severity, logging.INFO), "%s", message)  # errors are raised, not only logged

        def first_error(self) -> str:
            return self.errors[0] if self.errors else "it gave no reason"

    return Log()


def device_index(device: str) -> int:
    """The GPU of "cuda" or "cuda:<index>"; "cpu", which other sessions take for granted, is the first GPU here."""
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise InputError(f"an engine runs on cuda or cuda:<index>, not {device!r}")
    return int(match[1] or 0)


def load_cudart() -> Any:
    """The CUDA runtime's Python bindings. Raises MissingDependencyError with the line to type."""
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise MissingDependencyError(
            f"the Python bindings of CUDA cannot be imported ({error}); type: pip install cuda-bindings"
        ) from error


class Cuda:
    """One GPU of the CUDA runtime; errors are EngineErrors. ``name`` and ``capability`` ("8.9") are the GPU's."""

    def __init__(self, device: str) -> None:
        self.runtime = load_cudart()
        self.index = device_index(device)
        try:
            self.use()
            properties = self("cudaGetDeviceProperties", self.index)
        except EngineError as error:
            raise EngineError(f"there is no usable NVIDIA GPU {self.index}: {error}") from error
        name = properties.name
        self.name: str = name.decode() if isinstance(name, bytes) else name
        self.capability = f"{properties.major}.{properties.minor}"

    def __call__(self, function: str, *arguments: Any) -> Any:
        """The CUDA function's result. Raises EngineError."""
        error, *values = getattr(self.runtime, function)(*arguments)
        if int(error):
            raise EngineError(f"{function} fails with {error.name}")
        return values[0] if values else None

    def free(self, function: str, handle: Any) -> None:
        """Give something back; what cannot be given back any more (at the process's end) is gone already."""
        with contextlib.suppress(EngineError):
            self(function, handle)

    def use(self) -> None:
        """Make this GPU the calling thread's."""
        self("cudaSetDevice", self.index)


def tensor(dtype: str, shape: Iterable[int]) -> Tensor:
    """Return a tensor from TensorRT's name of its type and its shape, in which -1 is an open side."""
    return Tensor(_DTYPES.get(dtype, dtype), tuple(None if size < 0 else size for size in shape))
