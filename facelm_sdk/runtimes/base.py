"""What all runtimes share: the Session protocol, and runs of a fixed batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..contract import LandmarkSpec, ModelSpec, Tensors, check_outputs
from ..errors import ModelFileError

Provider = str | tuple[str, dict[str, Any]]
"""An execution provider as onnxruntime takes it: its name, or its name and options."""


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


def fixed_batch(found: Tensors, spec: ModelSpec) -> int | None:
    """Return the number of crops that a landmark graph takes, no more and no fewer; None where it takes any."""
    batch = next(iter(found.inputs.values())).shape
    return batch[0] if isinstance(spec, LandmarkSpec) and batch and isinstance(batch[0], int) else None


def checked_run(
    run: Callable[[], Sequence[NDArray[Any]]], feeds: Mapping[str, NDArray[Any]], spec: ModelSpec, name: str
) -> list[NDArray[Any]]:
    """Return the outputs of a run whose inputs are ``feeds``, once they are what the contract promises.

    Raises ModelFileError where the model ``name`` fails and ContractError where it gives something else.
    """
    try:
        outputs = list(run())
    except Exception as error:  # runtimes have no base of their errors
        given = ", ".join(f"{key} {value.dtype} {value.shape}" for key, value in feeds.items())
        raise ModelFileError(f"{name} cannot be run on {given} ({first_line(error)})") from error
    check_outputs(outputs, spec, len(feeds["crops"]) if isinstance(spec, LandmarkSpec) else None, name)
    return outputs


def first_line(error: Exception) -> str:
    """Return what an error of a runtime says first, without where in its sources it was raised."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
