"""What all runtimes share: the Session protocol, the options they are opened with, checked runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .. import zoo
from .._checks import is_whole
from ..contract import LandmarkSpec, ModelSpec, OutputCheck, Tensors
from ..errors import ContractError, InputError, ModelFileError

Provider = str | tuple[str, dict[str, Any]]
"""An execution provider: its name, of PROVIDERS or onnxruntime's own, or its name and options."""

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""Short names of onnxruntime's providers."""

InferencePrecision = Literal["f32", "bf16"]
"""What OpenVINO computes floats in on a CPU."""

MAX_THREADS = 1024
"""More threads than any machine has cores for one session; onnxruntime would start them all."""

MAX_BATCH = 4096
"""More crops than any model is exported for in a run, which is filled up to as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """How a model's file is to be run: what Aligner, Detector and Landmarker hand on to its runtime.

    ``device`` is "cpu", "cuda" or "cuda:<index>", with OpenVINO also "gpu" or "npu". ``providers``, as in onnxruntime,
    overrides it. ``strict`` makes a provider or device that cannot be used an error instead of a warning. ``threads``
    is the number of CPU threads of a run; for finer control give ``session_options`` (onnxruntime.SessionOptions)
    instead. ``inference_precision`` is OpenVINO's; None is f32. ``licence_notice=False`` keeps the line out of the log
    that says, once a process, that weights are for research use.

    Raises InputError for values that no runtime takes; each runtime refuses those that mean nothing to it.
    """

    device: str = "cpu"
    providers: Sequence[Provider] | None = None
    strict: bool = False
    threads: int | None = None
    session_options: Any = None
    inference_precision: InferencePrecision | None = None
    licence_notice: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.device, str) or not self.device:
            raise InputError(f"device is cpu, cuda or cuda:<index>, not {self.device!r}")
        if self.providers is not None:
            object.__setattr__(self, "providers", _checked_providers(self.providers))
        if not isinstance(self.strict, bool):
            raise InputError(f"strict is True or False, not {self.strict!r}")
        if not isinstance(self.licence_notice, bool):
            raise InputError(f"licence_notice is True or False, not {self.licence_notice!r}")
        if self.threads is not None and not is_whole(self.threads, 1, MAX_THREADS):
            raise InputError(f"threads is a whole number from 1 to {MAX_THREADS}, or None, not {self.threads!r}")
        if self.threads is not None and self.session_options is not None:
            raise InputError("give threads or session_options, not both (session_options.intra_op_num_threads)")
        if self.inference_precision not in (None, *get_args(InferencePrecision)):
            raise InputError(
                f"inference_precision is one of {', '.join(get_args(InferencePrecision))}, "
                f"not {self.inference_precision!r}"
            )

    def refuse(self, names: Sequence[str], why: str) -> None:
        """Raise InputError where an option of these names was given, which a runtime does not have."""
        if given := [name for name in names if getattr(self, name) is not None]:
            raise InputError(f"{', '.join(given)}: {why}")


def _checked_providers(providers: Any) -> tuple[Provider, ...]:
    def is_one(one: Any) -> bool:
        named = (
            isinstance(one, (tuple, list)) and len(one) == 2 and isinstance(one[0], str) and isinstance(one[1], dict)
        )
        return isinstance(one, str) or named

    if not isinstance(providers, (list, tuple)) or not providers or not all(map(is_one, providers)):
        raise InputError(
            f"providers is a list of names ({', '.join(PROVIDERS)}, or onnxruntime's own), or of (name, options); got "
            f"{providers!r}"
        )
    return tuple(_full(one) if isinstance(one, str) else (_full(one[0]), one[1]) for one in providers)


def _full(name: str) -> str:
    return PROVIDERS.get(name.lower(), name)


DEFAULTS = RuntimeOptions()


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


class Reopened:
    """A session that is pickled as what it was opened with, a file and options, and opened anew where it is unpickled.

    So it may go to another process, which must find the file in the same place; embedded models are found wherever the
    package is.
    """

    def __init__(self, model: str | os.PathLike[str] | bytes, options: RuntimeOptions, **more: Any) -> None:
        self._opened = (model if isinstance(model, bytes) else Path(model).absolute(), options, more)

    @property
    def sha256(self) -> str:
        """The sha256 of the file that was opened, as it is now. Raises OSError where it is gone."""
        model = self._opened[0]
        return hashlib.sha256(model if isinstance(model, bytes) else model.read_bytes()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        model, options, more = self._opened
        if options.session_options is not None:
            raise InputError("a model opened with session_options cannot be pickled: give threads in their place")
        embedded = isinstance(model, Path) and model.parent == zoo.WEIGHTS
        return _reopen, (type(self), model.name if embedded and isinstance(model, Path) else model, options, more)


def _reopen(
    kind: Callable[..., Session], model: bytes | Path | str, options: RuntimeOptions, more: dict[str, Any]
) -> Session:
    """Open a session; a text is the name of one of the package's files."""
    return kind(zoo.WEIGHTS / model if isinstance(model, str) else model, options, **more)


def fixed_batch(found: Tensors, spec: ModelSpec) -> int | None:
    """Return the number of crops that a landmark graph takes, no more and no fewer; None where it takes any.

    Raises ContractError for a number that is not from 1 to MAX_BATCH.
    """
    shape = next(iter(found.inputs.values())).shape
    if not isinstance(spec, LandmarkSpec) or not shape or not isinstance(batch := shape[0], int):
        return None
    if not 1 <= batch <= MAX_BATCH:
        raise ContractError(f"{spec.name} takes {batch} crops in a run; accepted are 1 to {MAX_BATCH}")
    return batch


def checked_run(
    run: Callable[[], Sequence[NDArray[Any]]], feeds: Mapping[str, NDArray[Any]], check: OutputCheck
) -> list[NDArray[Any]]:
    """Return the outputs of a run whose inputs are ``feeds``, once they are what the contract promises.

    Raises ModelFileError where the model fails and ContractError where it gives something else.
    """
    try:
        outputs = list(run())
    except Exception as error:  # runtimes have no base of their errors
        given = ", ".join(f"{key} {value.dtype} {value.shape}" for key, value in feeds.items())
        raise ModelFileError(f"{check.name} cannot be run on {given} ({first_line(error)})") from error
    check(outputs, len(feeds["crops"]) if "crops" in feeds else None)
    return outputs


def first_line(error: Exception) -> str:
    """Return what an error of a runtime says first, without where in its sources it was raised."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def run_in_parts(
    run: Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]],
    feeds: Mapping[str, NDArray[Any]],
    batch: int | None,
) -> list[NDArray[Any]]:
    """The outputs of a model of fixed batch: crops in parts of ``batch``, the last one filled up with black.

    Those of one run where ``batch`` is None.
    """
    if batch is None:
        return run(feeds)
    crops = feeds["crops"]
    runs = max(1, -(-len(crops) // batch))  # without a crop, one for the outputs' shapes
    padded = np.zeros((runs * batch, *crops.shape[1:]), crops.dtype)
    padded[: len(crops)] = crops
    parts = [run({"crops": part}) for part in np.split(padded, runs)]
    return [np.concatenate(part)[: len(crops)] for part in zip(*parts, strict=True)]
