"""ModelSpec: the contract of one exported model, kept inside the model's own file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from . import markup as markups
from .errors import ContractError, MarkupError
from .transform import CropRecipe

FORMAT_VERSION = 1
"""The version of the contract this package writes and reads."""

METADATA_KEY = "facelm"
"""The ONNX metadata entry that holds the contract as one JSON string."""

Task = Literal["landmarks", "detection", "pipeline"]

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What a model is and how it wants to be fed. Raises ContractError when the values contradict each other.

    ``task="landmarks"``: ``crops`` uint8 (n, S, S, 3) BGR in, ``landmarks`` float32 (n, L, 2) in crop pixels out, and
    ``scores`` float32 (n, L) where ``has_scores``; ``crop`` says how a crop is cut, ``flip`` that flip averaging
    happens inside the graph.

    ``task="detection"``: ``image`` uint8 (1, H, W, 3) BGR in, ``boxes`` (k, 4) xyxy, ``scores`` (k,) and ``kps``
    (k, 5, 2) float32 in image pixels out; ``det_thresh`` is the default score threshold (the graph's own is lower).

    ``task="pipeline"``: both in one graph. ``image`` uint8 (H, W, 3) BGR in; ``boxes``, ``scores``, ``kps``,
    ``landmarks`` (k, L, 2) and, where ``has_scores``, ``landmark_scores`` (k, L) out, best score first, all in image
    pixels; ``det_size`` as in Detector and ``det_thresh`` are built in, and so is ``crop``.

    ``multiply_adds``: billions for one crop, where they were counted; the runtime chooses its threads by them.

    ``data``, ``licence``, ``weights_sha256`` (of the source weights), ``parity`` (against PyTorch, in pixels),
    ``accuracy`` and ``created_by`` are for people; the runtime does not act on them.
    """

    task: Task
    name: str
    markup: str
    num_landmarks: int
    crop: CropRecipe | None = None
    has_scores: bool = False
    flip: bool = False
    precision: str = "fp32"
    det_thresh: float | None = None
    det_size: int | tuple[int, int] | Literal["auto"] | None = None
    data: str = ""
    licence: str = ""
    multiply_adds: float | None = None
    weights_sha256: str | None = None
    parity: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    created_by: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise ContractError(f"unknown task {self.task!r}; there are {', '.join(get_args(Task))}")
        try:
            expected = markups.get(self.markup).num_points
        except MarkupError as error:
            raise ContractError(str(error)) from error
        if self.num_landmarks != expected:
            raise ContractError(
                f"markup {self.markup} has {expected} points, but num_landmarks is {self.num_landmarks}"
            )
        if self.precision not in PRECISIONS:
            raise ContractError(f"unknown precision {self.precision!r}; there are {', '.join(PRECISIONS)}")
        if self.task == "landmarks" and self.crop is None:
            raise ContractError("a landmark model needs a crop recipe")
        if self.task == "detection" and (self.markup != "kps5" or self.crop is not None or self.det_thresh is None):
            raise ContractError("a detection model has markup kps5, no crop recipe and a det_thresh")
        if self.task == "pipeline" and None in (self.crop, self.det_thresh, self.det_size):
            raise ContractError("a pipeline has a crop recipe, a det_thresh and a det_size")

    def to_json(self) -> str:
        """The JSON text for the metadata entry ``facelm``."""
        values = {**asdict(self), "crop": None if self.crop is None else self.crop.to_dict()}
        for name in _OPTIONAL:  # versions that do not know them read what has none
            if values[name] is None:
                del values[name]
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """The inverse of :meth:`to_json`. Raises ContractError on anything this version does not know exactly."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ContractError(f"the model's contract is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise ContractError(f"the model's contract must be a JSON object, not {type(values).__name__}")
        _check_version(values)
        known = {entry.name for entry in fields(cls)}
        if missing := sorted(known - values.keys() - _OPTIONAL):
            raise ContractError(f"the model's contract lacks {', '.join(missing)}")
        if unknown := sorted(values.keys() - known):
            raise ContractError(f"the model's contract has unknown entries: {', '.join(unknown)}")
        values = {**dict.fromkeys(_OPTIONAL), **values}
        _check_types(values)
        if isinstance(values["det_size"], list):
            values["det_size"] = tuple(values["det_size"])
        crop = None if values["crop"] is None else CropRecipe.from_dict(values["crop"])
        return cls(**{**values, "crop": crop})


_OPTIONAL = {"det_size", "multiply_adds"}
"""Entries that came after format_version 1 did; a contract may lack them."""

_TYPES: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "name": (str,),
    "markup": (str,),
    "num_landmarks": (int,),
    "crop": (dict, type(None)),
    "has_scores": (bool,),
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
}


def _check_version(values: dict[str, Any]) -> None:
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        advice = "upgrade facelm-sdk" if isinstance(version, int) and version > FORMAT_VERSION else "export it anew"
        raise ContractError(
            f"the model's contract has format_version {version!r}; this facelm-sdk reads {FORMAT_VERSION}: {advice}"
        )


def _check_types(values: dict[str, Any]) -> None:
    for name, types in _TYPES.items():
        value = values[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            wanted = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            raise ContractError(f"the model's contract has {name} = {value!r}, which is not {wanted}")
