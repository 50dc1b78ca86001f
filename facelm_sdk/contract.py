"""The contract of an exported model, kept inside the model's own file: one class a task, their tensors, the check."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from . import markup as markups
from ._json import parse
from .errors import ContractError, MarkupError
from .transform import CropRecipe

FORMAT_VERSION = 1
"""The version of the contract this package writes and reads."""

METADATA_KEY = "facelm"
"""The ONNX metadata entry that holds the contract as one JSON string."""

Task = Literal["landmarks", "detection", "pipeline"]

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as plain data: numpy's name of its element type, and its shape.

    A side that is open is None, or the name it has in the graph; a shape of None is one that the graph does not tell.
    """

    dtype: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, slots=True)
class Tensors:
    """The inputs and outputs of a graph by name, in order."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(ABC):
    """What every contract says. :meth:`from_json` gives a LandmarkSpec, a DetectorSpec or a PipelineSpec.

    ``precision`` is what was rounded when the model was exported. ``data``, ``licence``, ``weights_sha256`` (of the
    source weights), ``parity`` (against PyTorch, in pixels), ``accuracy`` and ``created_by`` are for people; the
    runtime does not act on them.

    Raises ContractError when the values contradict each other.
    """

    task: ClassVar[Task]

    name: str
    precision: str = "fp32"
    data: str = ""
    licence: str = ""
    weights_sha256: str | None = None
    parity: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    created_by: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ContractError(f"unknown precision {self.precision!r}; there are {', '.join(PRECISIONS)}")

    @property
    @abstractmethod
    def tensors(self) -> Tensors:
        """The inputs and outputs that the contract promises."""

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as JSON-ready values: an entry for each that any task has, null where it means nothing.

        Entries that came after format_version 1 are left out where they say nothing, so that older versions read it.
        """
        own = {"task": self.task, **{entry.name: getattr(self, entry.name) for entry in fields(self)}}
        values = {name: own.get(name, _NEUTRAL.get(name)) for name in _TYPES}
        if isinstance(values["crop"], CropRecipe):
            values["crop"] = values["crop"].to_dict()
        return {name: value for name, value in values.items() if name not in _LATER or value != _NEUTRAL[name]}

    def to_json(self) -> str:
        """Return the JSON text for the metadata entry ``facelm``."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> LandmarkSpec | DetectorSpec | PipelineSpec:
        """Return what :meth:`to_json` wrote. Raises ContractError on anything this version does not know exactly."""
        values = _read_entries(text)
        task = values.pop("task")
        kind = _KINDS.get(task)
        if kind is None:
            raise ContractError(f"unknown task {task!r}; there are {', '.join(_KINDS)}")
        if isinstance(values["det_size"], list):
            values["det_size"] = tuple(values["det_size"])
        if values["crop"] is not None:
            values["crop"] = CropRecipe.from_dict(values["crop"])
        own = {entry.name for entry in fields(kind)}
        if strange := [name for name in values.keys() - own if values[name] != _NEUTRAL[name]]:
            raise ContractError(f"a contract for {kind.task} has no {', '.join(sorted(strange))}")
        if missing := [name for name in ("crop", "det_thresh", "det_size") if name in own and values[name] is None]:
            raise ContractError(f"a contract for {kind.task} needs a value of {', '.join(missing)}")
        return kind(**{name: value for name, value in values.items() if name in own})


@dataclass(frozen=True, slots=True, kw_only=True)
class WithLandmarks(ModelSpec):
    """What is said of landmarks: their ``markup``, and how the crop they are found in is cut.

    ``has_scores``: there is a score a landmark; ``flip``: flip averaging happens inside the graph; ``multiply_adds``:
    billions for one crop, where they were counted, by which the runtime chooses its threads.
    """

    markup: str
    num_landmarks: int
    crop: CropRecipe
    has_scores: bool = False
    flip: bool = False
    multiply_adds: float | None = None

    def __post_init__(self) -> None:
        ModelSpec.__post_init__(self)
        try:
            expected = markups.get(self.markup).num_points
        except MarkupError as error:
            raise ContractError(str(error)) from error
        if self.num_landmarks != expected:
            raise ContractError(
                f"markup {self.markup} has {expected} points, but num_landmarks is {self.num_landmarks}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LandmarkSpec(WithLandmarks):
    """A landmark model: ``crops`` uint8 (n, S, S, 3) BGR in, ``landmarks`` float32 (n, L, 2) in crop pixels out.

    ``scores`` float32 (n, L) come with them where ``has_scores``, and where ``has_presence`` ``presence`` float32 (n,):
    the probability that the crop shows a face.
    """

    task: ClassVar[Literal["landmarks"]] = "landmarks"

    has_presence: bool = False

    @property
    def tensors(self) -> Tensors:
        """The inputs and outputs that the contract promises."""
        size, points = self.crop.size, self.num_landmarks
        outputs = {"landmarks": Tensor("float32", (None, points, 2))}
        if self.has_scores:
            outputs["scores"] = Tensor("float32", (None, points))
        if self.has_presence:
            outputs["presence"] = Tensor("float32", (None,))
        return Tensors({"crops": Tensor("uint8", (None, size, size, 3))}, outputs)


_FACES = {
    "boxes": Tensor("float32", (None, 4)),
    "scores": Tensor("float32", (None,)),
    "kps": Tensor("float32", (None, 5, 2)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSpec(ModelSpec):
    """A detector: ``image`` uint8 (1, H, W, 3) BGR in; ``boxes`` (k, 4) xyxy, ``scores`` (k,), ``kps`` (k, 5, 2) out.

    Boxes and points are float32 in pixels of the image. ``det_thresh`` is the default score threshold (the graph's own
    is lower).
    """

    task: ClassVar[Literal["detection"]] = "detection"

    det_thresh: float

    def __post_init__(self) -> None:
        ModelSpec.__post_init__(self)
        _check_threshold(self.det_thresh)

    @property
    def tensors(self) -> Tensors:
        """The inputs and outputs that the contract promises."""
        return Tensors({"image": Tensor("uint8", (1, None, None, 3))}, _FACES)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec(WithLandmarks):
    """Both in one graph: ``image`` uint8 (H, W, 3) BGR in, faces with their landmarks out, best score first.

    ``boxes``, ``scores`` and ``kps`` as of a detector, ``landmarks`` (k, L, 2) and, where ``has_scores``,
    ``landmark_scores`` (k, L), all float32 and in image pixels. ``det_size`` as in Detector and ``det_thresh`` are
    built in, and so is ``crop``.
    """

    task: ClassVar[Literal["pipeline"]] = "pipeline"

    det_thresh: float
    det_size: int | tuple[int, int] | Literal["auto"]

    def __post_init__(self) -> None:
        WithLandmarks.__post_init__(self)
        _check_threshold(self.det_thresh)
        sides = self.det_size if isinstance(self.det_size, tuple) else (self.det_size,)
        whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides)
        if self.det_size != "auto" and not (whole and len(sides) <= 2):
            raise ContractError(f"det_size is 'auto', a long side or (width, height), not {self.det_size!r}")

    @property
    def tensors(self) -> Tensors:
        """The inputs and outputs that the contract promises."""
        outputs = {**_FACES, "landmarks": Tensor("float32", (None, self.num_landmarks, 2))}
        if self.has_scores:
            outputs["landmark_scores"] = Tensor("float32", (None, self.num_landmarks))
        return Tensors({"image": Tensor("uint8", (None, None, 3))}, outputs)


def check(found: Tensors, spec: ModelSpec, name: str) -> None:
    """Raise ContractError, which calls the graph ``name``, unless its tensors are those of the contract.

    An input leaves open what the contract does, but for the number of crops, which may be fixed; an output may be less
    precise.
    """
    wanted = spec.tensors
    may_be_fixed = isinstance(spec, LandmarkSpec)
    for kind, ours, theirs in (
        ("inputs", wanted.inputs, found.inputs),
        ("outputs", wanted.outputs, found.outputs),
    ):
        may_be_open = kind == "outputs"
        agrees = theirs.keys() == ours.keys() and all(
            _agrees(theirs[key], ours[key], may_be_open=may_be_open, may_be_fixed=may_be_fixed or may_be_open)
            for key in ours
        )
        if not agrees:
            raise ContractError(f"{name} has {kind} {_text(theirs)}; its contract says {_text(ours)}")


class OutputCheck:
    """Tells of each run whether it gave what the contract promises, which a graph can break that checked well.

    ``name`` is what to call the graph.
    """

    def __init__(self, spec: ModelSpec, name: str) -> None:
        self._promised, self.name = spec.tensors.outputs, name
        self._wanted = [(np.dtype(tensor.dtype), (tensor.shape or ())[1:]) for tensor in self._promised.values()]

    def __call__(self, outputs: Sequence[NDArray[Any]], crops: int | None) -> None:
        """Raise ContractError for a run on so many ``crops``, None where the number of faces is the graph's to find."""
        counted = (crops,) if crops is not None else outputs[1].shape[:1]  # a detector's and pipeline's scores
        for array, (dtype, sides) in zip(outputs, self._wanted, strict=True):
            if array.dtype != dtype or array.shape != counted + sides:
                self._refuse(outputs, counted)

    def _refuse(self, outputs: Sequence[NDArray[Any]], counted: tuple[int, ...]) -> NoReturn:
        found = [Tensor(str(array.dtype), array.shape) for array in outputs]
        wanted = [Tensor(str(dtype), (counted or (None,)) + sides) for dtype, sides in self._wanted]
        gave, says = (_text(dict(zip(self._promised, tensors, strict=True))) for tensors in (found, wanted))
        raise ContractError(f"{self.name} gave {gave}; its contract says {says}")


def _agrees(found: Tensor, wanted: Tensor, *, may_be_open: bool, may_be_fixed: bool) -> bool:
    if found.dtype != wanted.dtype:
        return False
    if found.shape is None or wanted.shape is None:
        return may_be_open
    return len(found.shape) == len(wanted.shape) and all(
        (may_be_fixed or not isinstance(size, int)) if want is None else (not isinstance(size, int) or size == want)
        for size, want in zip(found.shape, wanted.shape, strict=True)
    )


def _text(tensors: Mapping[str, Tensor]) -> str:
    def shape(tensor: Tensor) -> str:
        if tensor.shape is None:
            return "of any shape"
        return f"({', '.join('?' if size is None else str(size) for size in tensor.shape)})"

    return ", ".join(f"{name} {tensor.dtype} {shape(tensor)}" for name, tensor in tensors.items())


_KINDS: dict[str, type[LandmarkSpec] | type[DetectorSpec] | type[PipelineSpec]] = {
    "landmarks": LandmarkSpec,
    "detection": DetectorSpec,
    "pipeline": PipelineSpec,
}

_NEUTRAL: dict[str, Any] = {
    "markup": "kps5",
    "num_landmarks": 5,
    "crop": None,
    "has_scores": False,
    "has_presence": False,
    "flip": False,
    "det_thresh": None,
    "det_size": None,
    "multiply_adds": None,
}
"""What stands in the JSON for entries of other tasks."""

_LATER = {"det_size", "multiply_adds", "has_presence"}
"""Entries that came after format_version 1 did; a contract may lack them."""

_TYPES: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "name": (str,),
    "markup": (str,),
    "num_landmarks": (int,),
    "crop": (dict, type(None)),
    "has_scores": (bool,),
    "has_presence": (bool,),
    "flip": (bool,),
    "precision": (str,),
    "det_thresh": (float, int, type(None)),
    "det_size": (int, list, str, type(None)),
    "data": (str,),
    "licence": (str,),
    "multiply_adds": (float, int, type(None)),
    "weights_sha256": (str, type(None)),
    "parity": (dict,),
    "accuracy": (dict,),
    "created_by": (str,),
    "format_version": (int,),
}
"""The entries of the JSON, in order."""


def _read_entries(text: str) -> dict[str, Any]:
    """Return the entries of a contract's JSON, all that there are, each of its type."""
    try:
        values = parse(text)
    except ValueError as error:
        raise ContractError(f"the model's contract is not JSON that this reads ({error})") from error
    if not isinstance(values, dict):
        raise ContractError(f"the model's contract must be a JSON object, not {type(values).__name__}")
    _check_version(values)
    if missing := sorted(_TYPES.keys() - values.keys() - _LATER):
        raise ContractError(f"the model's contract lacks {', '.join(missing)}")
    if unknown := sorted(values.keys() - _TYPES.keys()):
        raise ContractError(f"the model's contract has unknown entries: {', '.join(unknown)}")
    values = {**{name: _NEUTRAL[name] for name in _LATER}, **values}
    for name, types in _TYPES.items():
        value = values[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            wanted = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            raise ContractError(f"the model's contract has {name} = {value!r}, which is not {wanted}")
    return values


def _check_version(values: Mapping[str, Any]) -> None:
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        advice = "upgrade facelm-sdk" if isinstance(version, int) and version > FORMAT_VERSION else "export it anew"
        raise ContractError(
            f"the model's contract has format_version {version!r}; this facelm-sdk reads {FORMAT_VERSION}: {advice}"
        )


def _check_threshold(det_thresh: float) -> None:
    if not 0 <= det_thresh <= 1:
        raise ContractError(f"det_thresh is a score from 0 to 1, not {det_thresh!r}")
