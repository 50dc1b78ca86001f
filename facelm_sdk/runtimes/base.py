"""What all runtimes share: the Session protocol, a contract's signature and its check, runs of a fixed batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..contract import ModelSpec
from ..errors import ContractError

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
