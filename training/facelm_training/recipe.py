"""Recipes: how the weights of a model are made, read from TOML files.

The files of ``configs/`` come with the package; ``facelm train`` takes one of them by name or any other by its path.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from facelm_models import create, info
from facelm_models.registry import Decoding, ModelInfo, UnknownDecoding, UnknownModel, decoder
from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError, UnknownModelError
from facelm_sdk.files import is_file
from facelm_sdk.transform import CropRecipe, kps5_recipe

from .checks import number, part
from .loop import Schedule
from .objectives import WEIGHTS, SoftArgmaxWeights, Weights

CONFIGS = Path(__file__).with_name("configs")
MIXTURES = CONFIGS / "mixtures"
STUDIES = CONFIGS / "studies"
NO_RECIPES = (MIXTURES.name, STUDIES.name)
"""Folders of ``configs`` that hold parts of recipes, or sets of them."""
Objective = Literal["coordinates", "mtld", "slpt", "heatmap", "soft_argmax", "structured"]
HEADS = {"pooled": ("backbone", "coordinates"), "heatmaps": ("features", "heatmap")}
"""Networks of a warm-up stage: the part of the model under their head, and the head's objective."""


@dataclass(frozen=True)
class Augmentation:
    """How a training crop differs from the one the runtime would cut.

    ``degrees``, ``scale`` and ``shift`` (of the crop's side) are standard deviations or, ``uniform``, bounds.
    ``cut_noise``: jitter of the five points or the box that cut the crop, of the eye distance. ``colour``: strength of
    contrast, brightness, gamma and colour cast; ``gains``: bound of a factor of each colour channel about 1. ``flip``,
    ``grey``, ``occlusion``, ``cover`` (of about half of the face) and ``degrade`` (blur, noise, JPEG, loss of
    resolution) are probabilities.
    """

    degrees: float = 12.0
    scale: float = 0.08
    shift: float = 0.03
    uniform: bool = False
    cut_noise: float = 0.035
    flip: float = 0.5
    colour: float = 1.0
    gains: float = 0.0
    grey: float = 0.12
    occlusion: float = 0.35
    cover: float = 0.0
    degrade: float = 1.0

    def __post_init__(self) -> None:
        for name in ("degrees", "scale", "shift", "cut_noise", "colour"):
            number(name, getattr(self, name), least=0)
        for name in ("gains", "flip", "grey", "occlusion", "cover", "degrade"):
            part(name, getattr(self, name))


@dataclass(frozen=True)
class Stage:
    """One network at one resolution.

    ``network``: ``full``; ``pooled``, the backbone under a plain regression head, or ``heatmaps``, the feature map
    under one convolution: both learn from random weights, which transformers over them hardly do; ``confidence``, only
    the heads for the confidence of the points, all else as it is. ``weights``: of a warm-up head's objective,
    coordinates or heatmap; those of the full network are the recipe's.
    """

    name: str
    schedule: Schedule
    network: Literal["pooled", "heatmaps", "full", "confidence"] = "full"
    size: int = 256
    weights: Weights | None = None

    def __post_init__(self) -> None:
        number("size", self.size, least=1)
        if self.name in ("", "..") or Path(self.name).name != self.name:
            raise InputError(f"name is that of the stage's folder, not {self.name!r}")


@dataclass(frozen=True)
class Source:
    """A data set of a mixture: ``data`` as NAME[/PART]:FOLDER, its folder below that of --data.

    ``weight``: how often each of its faces is drawn, against those of the others.
    """

    data: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        number("weight", self.weight, above=0)


@dataclass(frozen=True)
class ConfidenceCrops:
    """What a confidence stage is shown: ``faces`` views of faces, and ``others`` crops without one.

    ``negatives``: folders of pictures without a face, below that of --data.
    """

    faces: int = 28000
    others: int = 16000
    negatives: tuple[str, ...] = ("negatives",)

    def __post_init__(self) -> None:
        number("faces", self.faces, least=1)
        number("others", self.others, least=1)


@dataclass(frozen=True)
class LandmarkRecipe:
    """How a landmark model's weights are made.

    ``options`` are config entries of the network, ``crop`` and ``decoding`` replace the model's own, ``weights`` are
    the objective's, one of :data:`facelm_training.objectives.WEIGHTS`. ``sources``: the data sets it trains on where
    --data is a folder, and ``held_out`` the one that the best weights are chosen on, all of which ``mixture = "NAME"``
    takes from a file of ``configs/mixtures``. Where --data names a data set, ``train`` and ``val`` are its splits, and
    ``held_out_part`` of the training pictures, always the same, take the place of ``val`` if it is above 0.
    ``start``: trained weights to begin with, of the same architecture at any crop size, as the name of a model whose
    weights are in facelm-weights or a .safetensors file; where a confidence stage is the only one, that network as it
    is. ``backbone``: for the backbone alone, an ImageNet checkpoint in torchvision's names (.pth or .safetensors), or a
    network that was trained here and has the same one, as for ``start``.
    ``confidence``: the crops of a last stage of that name.
    """

    model: str
    stages: tuple[Stage, ...]
    objective: Objective = "coordinates"
    markup: str = "ibug68"
    train: str = "train"
    val: str = "val"
    held_out_part: float = 0.0
    decoding: Decoding | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    crop: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights | None = None
    augmentation: Augmentation = Augmentation()
    confidence: ConfidenceCrops = ConfidenceCrops()
    seed: int = 0
    sources: tuple[Source, ...] = ()
    held_out: str = ""
    evaluate_every: int = 500
    data: str = "not stated"
    summary: str = "not stated"
    floor: str = ""
    start: str = ""
    backbone: str = ""

    def __post_init__(self) -> None:
        kind = WEIGHTS[self.objective]
        if self.weights is None:
            object.__setattr__(self, "weights", kind())
        elif not isinstance(self.weights, kind):
            raise InputError(f"the weights of {self.objective} are {kind.__name__}, not {self.weights!r}")
        number("held_out_part", self.held_out_part, least=0, below=1)
        number("seed", self.seed, least=0)
        number("evaluate_every", self.evaluate_every, least=1)

    @property
    def only_confidence(self) -> bool:
        """Whether all it does is to give trained weights their confidence."""
        return all(stage.network == "confidence" for stage in self.stages)

    def weights_of(self, stage: Stage) -> tuple[str, Weights]:
        """Return the objective of a stage and its weights."""
        objective = HEADS[stage.network][1] if stage.network in HEADS else self.objective
        own = self.weights if objective == self.objective else None
        return objective, stage.weights or own or WEIGHTS[objective]()


@dataclass(frozen=True)
class DetectionRecipe:
    """How a detector's weights are made.

    ``sure``: teacher's score from which a box counts as a face; below it, it is neither face nor background.
    ``sizes``: sides of the composed pictures, step after step; the batch is the schedule's for the first of them and
    shrinks with the area. ``faces``: smallest face of a picture in pixels, and largest as a part of its side.
    ``landmarks``: data sets of landmarks whose pictures join the frames, each NAME[/PART]:FOLDER below that of --data;
    ``negatives``: folders there of pictures without a face. ``background``: part of the composed pictures that have no
    face; ``turned``: part of the faces whose roll is any; ``drawn``: part of the pictures with drawn faces, which are
    none. ``held_out``: the landmark data set that, with a part of the negatives, the best weights are chosen on; else
    every fourth of the val frames.
    """

    model: str
    schedule: Schedule
    sizes: tuple[int, ...] = (256, 256, 512)
    seed: int = 0
    sure: float = 0.8
    faces: tuple[float, float] = (11.0, 1.2)
    smallest: float = 9.0
    mosaic: float = 0.65
    background: float = 0.12
    text: float = 0.5
    match: float = 0.35
    turned: float = 0.0
    drawn: float = 0.0
    landmarks: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    held_out: str = ""
    det_thresh: float = 0.88
    evaluate_every: int = 500
    data: str = "not stated"
    summary: str = "not stated"
    floor: str = ""

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise InputError(f"sizes are sides of pictures in pixels, at least one, not {list(self.sizes)}")
        for name in ("sure", "mosaic", "background", "text", "match", "turned", "drawn", "det_thresh"):
            part(name, getattr(self, name))
        for value in self.faces:
            number("faces", value, above=0)
        number("smallest", self.smallest, least=0)
        number("seed", self.seed, least=0)
        number("evaluate_every", self.evaluate_every, least=1)


Recipe = LandmarkRecipe | DetectionRecipe
T = TypeVar("T")


def names() -> list[str]:
    """The recipes that come with the package; those of ``papers/`` are the papers' own."""
    found = (path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.toml"))
    return sorted(name for name in found if name.partition("/")[0] not in NO_RECIPES)


def find(config: str) -> Path:
    """The file of a packaged recipe's name, or ``config`` as a path. Raises InputError listing the names."""
    packaged = CONFIGS / f"{config}.toml"
    if is_file(packaged):
        return packaged
    path = Path(config)
    if path.suffix == ".toml" and is_file(path):
        return path
    raise InputError(f"{config!r} is neither a .toml file nor a packaged recipe; those are {', '.join(names())}")


def read(config: str | Path) -> Recipe:
    """Read the recipe of a packaged name or a TOML file.

    Raises InputError naming the entry that is unknown, missing, of the wrong type or out of bounds, in any table of the
    recipe; UnknownModelError and MarkupError.
    """
    path = find(str(config))
    return parse(read_toml(path), path.name)


def parse(values: dict[str, Any], where: str) -> Recipe:
    """Make the recipe of a TOML file's entries, as :func:`read` does; errors begin with ``where``."""
    if not isinstance(model := values.get("model"), str):
        raise InputError(f'{where} does not say which model it trains: add model = "..."')
    try:
        task = info(model).task
    except UnknownModel as error:
        raise UnknownModelError(f"{where}: {error}") from error
    if task == "detection":
        return build(DetectionRecipe, values, where)
    values = _with_weights(_with_mixture(values, where), where)
    recipe = build(LandmarkRecipe, values, where)
    markups.get(recipe.markup)
    if "val" in values and recipe.held_out_part:
        raise InputError(f"{where} has both val and held_out_part: the best weights are chosen on one of them")
    try:
        _check_decoding(recipe)
        _check(recipe)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return recipe


def _check_decoding(recipe: LandmarkRecipe) -> None:
    """Raise InputError unless points are read as the objective means them."""
    try:
        used = decoder(described(recipe).decoding)
    except UnknownDecoding as error:
        raise InputError(f"decoding: {error}") from error
    if isinstance(recipe.weights, SoftArgmaxWeights) and used != decoder(recipe.weights.decoding):
        raise InputError(f'the points of these weights are read by decoding = "{recipe.weights.decoding}"')
    if (used.name == "corrected_argmax") != bool(recipe.options.get("correction")):
        raise InputError('options = { correction = true } and decoding = "corrected_argmax" go together')


@dataclass(frozen=True)
class _FivePointCrop:
    kind: Literal["kps5"]
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        number("zoom", self.zoom, above=0)
        for value in self.shift:
            number("shift", value)


@dataclass(frozen=True)
class _BoxCrop:
    kind: Literal["box"]
    side: Literal["max", "min", "mean"] = "max"
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    box: Literal["detector", "landmarks"] = "detector"
    offset: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        number("scale", self.scale, above=0)
        for value in self.shift:
            number("shift", value)
        for value in self.offset:
            number("offset", value)


def _check(recipe: LandmarkRecipe) -> None:
    """Raise InputError where entries that are sound in themselves do not go together, or with the network."""
    points = markups.get(recipe.markup).num_points
    if not recipe.stages:
        raise InputError("there is no [[stages]]")
    stages = [stage.name for stage in recipe.stages]
    if len(set(stages)) < len(stages):
        raise InputError(f"stages are told apart by their names, which are {', '.join(stages)}")
    if (last := recipe.stages[-1]).network in HEADS:
        raise InputError(
            f"the last stage, {last.name}, trains the {last.network} head of a warm-up, which is thrown away: add a "
            'stage whose network is "full"'
        )
    if early := [stage.name for stage in recipe.stages[:-1] if stage.network == "confidence"]:
        raise InputError(f"stage {early[0]}, of the confidence, is the last stage: its heads are of weights that stay")
    if last.network == "confidence" and len(recipe.stages) > 1 and recipe.stages[-2].network in HEADS:
        raise InputError(f'stage {last.name} comes after one whose network is "full", or alone, with start = "..."')
    if bool(recipe.sources) != bool(recipe.held_out):
        raise InputError("sources and held_out go together: what is trained on, and what the best are chosen on")
    if recipe.crop:
        kinds: dict[Any, type[Any]] = {"kps5": _FivePointCrop, "box": _BoxCrop}
        if (kind := recipe.crop.get("kind")) not in kinds:
            raise InputError(f"crop: kind is one of {', '.join(kinds)}, not {kind!r}")
        table = {key: list(value) if isinstance(value, tuple) else value for key, value in recipe.crop.items()}
        build(kinds[kind], table, "crop")
    neighbours = getattr(recipe.weights, "neighbours", 1)
    number("weights: neighbours", neighbours, below=points)
    config = type(info(recipe.model).config)
    hints = typing.get_type_hints(config)
    known = [entry.name for entry in fields(config) if entry.name not in ("num_landmarks", "size", "confidence")]
    if unknown := sorted(set(recipe.options) - set(known)):
        raise InputError(
            f"options has unknown entries {', '.join(unknown)}; {recipe.model} has {', '.join(known)} (the number of "
            "landmarks is the markup's, the size a stage's)"
        )
    for key, value in recipe.options.items():
        _value(hints[key], list(value) if isinstance(value, tuple) else value, f"options: {key}")
    for stage in recipe.stages:
        _check_network(recipe, stage, points)


def _check_network(recipe: LandmarkRecipe, stage: Stage, points: int) -> None:
    """Raise InputError unless the network can be built with the recipe's options, and has what the stage trains."""
    try:
        with torch.device("meta"):  # neither memory nor random numbers
            network = create(recipe.model, num_landmarks=points, size=stage.size, **recipe.options)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, AssertionError, LookupError) as error:
        raise InputError(f"stage {stage.name}: {recipe.model} cannot be built so: {error}") from error
    if stage.network == "confidence" and not hasattr(network.config, "confidence"):
        raise InputError(f"stage {stage.name}: {recipe.model} has no heads for the confidence of its points")
    if stage.network in HEADS and not hasattr(network, HEADS[stage.network][0]):
        raise InputError(f"stage {stage.name}: {recipe.model} has no {HEADS[stage.network][0]} for a head to train")


def described(recipe: LandmarkRecipe) -> ModelInfo:
    """The recipe's model with the recipe's crop and decoding."""
    own = info(recipe.model)
    return replace(own, crop=recipe.crop or own.crop, decoding=recipe.decoding or own.decoding)


def crop_recipe(recipe: LandmarkRecipe, size: int) -> CropRecipe:
    """The recipe's crop, or the model's own, at a resolution."""
    options = dict(described(recipe).crop)
    if options.pop("kind") == "kps5":
        return kps5_recipe(size, **options)
    return CropRecipe(size=size, kind="box", **options)


def _with_weights(values: dict[str, Any], where: str) -> dict[str, Any]:
    """A recipe's entries with its tables of weights read, which are of the objective's kind."""
    objective = _value(Objective, values.get("objective", "coordinates"), f"{where}: objective")
    if "weights" in values:
        values = values | {"weights": build(WEIGHTS[objective], values["weights"], f"{where}: weights")}
    if isinstance(stages := values.get("stages"), list):
        values = values | {
            "stages": [_with_own_weights(stage, f"{where}: stages[{i}]") for i, stage in enumerate(stages)]
        }
    return values


def _with_own_weights(stage: Any, where: str) -> Any:
    if not isinstance(stage, dict) or "weights" not in stage:
        return stage
    if (network := stage.get("network", "full")) not in HEADS:
        raise InputError(f"{where}: a stage's weights are those of a warm-up's head; a full network's are the recipe's")
    return stage | {"weights": build(WEIGHTS[HEADS[network][1]], stage["weights"], f"{where}: weights")}


def _with_mixture(values: dict[str, Any], where: str) -> dict[str, Any]:
    """A recipe's entries with those of its mixture, none of which it may have of its own."""
    if (name := values.pop("mixture", None)) is None:
        return values
    known = sorted(path.stem for path in MIXTURES.glob("*.toml"))
    if name not in known:
        raise InputError(f"{where}: mixture is one of {', '.join(known)}, not {name!r}")
    mixture = read_toml(MIXTURES / f"{name}.toml")
    if both := sorted(set(values) & set(mixture)):
        raise InputError(f"{where} has {', '.join(both)} of its own beside the mixture {name}")
    return values | mixture


def read_toml(path: Path) -> dict[str, Any]:
    """The entries of a TOML file. Raises InputError."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return dict(tomllib.loads(path.read_text()))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error


def build(kind: type[T], values: Any, where: str) -> T:
    """Build a dataclass from a table, strictly. Raises InputError, which begins with ``where``."""
    if not isinstance(values, dict):
        raise InputError(f"{where} must be a table, not {values!r}")
    assert is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    entries = {entry.name: entry for entry in fields(kind)}
    if unknown := sorted(set(values) - set(entries)):
        raise InputError(f"{where} has unknown entries {', '.join(unknown)}; known: {', '.join(entries) or 'none'}")
    required = [n for n, e in entries.items() if e.default is MISSING and e.default_factory is MISSING]
    if missing := [name for name in required if name not in values]:
        raise InputError(f"{where} lacks {', '.join(missing)}")
    read = {name: _value(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    try:
        return kind(**read)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(value):
        return value  # read already
    if is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where} must be a list, not {value!r}")
        each = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(each) != len(value):
            raise InputError(f"{where} must have {len(each)} values, not {len(value)}")
        return tuple(_value(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(each, value, strict=True)))
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"{where} is one of {', '.join(map(str, arguments))}, not {value!r}")
        return value
    if origin in (typing.Union, types.UnionType):
        return value if value is None else _value(arguments[0], value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        number(where, value)
        return float(value)
    expected = dict if origin is not None else hint
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise InputError(f"{where} must be {getattr(expected, '__name__', expected)}, not {value!r}")
    if isinstance(value, dict):
        return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
    return value
