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

from facelm_models import info
from facelm_models.registry import Decoding, ModelInfo, UnknownModel, list_decoders
from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError, UnknownModelError
from facelm_sdk.transform import CropRecipe, kps5_recipe

from .loop import Schedule

CONFIGS = Path(__file__).with_name("configs")
MIXTURES = CONFIGS / "mixtures"
Objective = Literal["coordinates", "mtld", "slpt", "heatmap", "structured"]


@dataclass(frozen=True)
class Augmentation:
    """How a training crop differs from the one the runtime would cut.

    ``degrees``, ``scale`` and ``shift`` (of the crop's side) are standard deviations or, ``uniform``, bounds.
    ``cut_noise``: jitter of the five points or the box that cut the crop, of the eye distance. ``flip``, ``grey``,
    ``occlusion`` and ``degrade`` (blur, noise, JPEG, loss of resolution) are probabilities.
    """

    degrees: float = 12.0
    scale: float = 0.08
    shift: float = 0.03
    uniform: bool = False
    cut_noise: float = 0.035
    flip: float = 0.5
    colour: float = 1.0
    grey: float = 0.12
    occlusion: float = 0.35
    degrade: float = 1.0


@dataclass(frozen=True)
class Stage:
    """One network at one resolution.

    ``network``: ``full``; ``pooled``, the backbone under a plain regression head, or ``heatmaps``, the feature map
    under one convolution: both learn from random weights, which transformers over them hardly do.
    """

    name: str
    schedule: Schedule
    network: Literal["pooled", "heatmaps", "full"] = "full"
    size: int = 256


@dataclass(frozen=True)
class Source:
    """A data set of a mixture: ``data`` as NAME[/PART]:FOLDER, its folder below that of --data.

    ``weight``: how often each of its faces is drawn, against those of the others.
    """

    data: str
    weight: float = 1.0


@dataclass(frozen=True)
class LandmarkRecipe:
    """How a landmark model's weights are made.

    ``options`` are config entries of the network, ``crop`` and ``decoding`` replace the model's own, ``weights`` are
    the objective's (see :mod:`facelm_training.objectives`). ``sources``: the data sets it trains on where --data is
    a folder, and ``held_out`` the one that the best weights are chosen on, all of which ``mixture = "NAME"`` takes from
    a file of ``configs/mixtures``; ``train`` and ``val`` are the splits of the data set where --data names one.
    ``start``: trained weights to begin with, of the same architecture at any crop size, as the name of a model whose
    weights come with the package or a .safetensors file. ``backbone``: an ImageNet checkpoint in torchvision's names
    (.pth or .safetensors), for the backbone alone.
    """

    model: str
    stages: tuple[Stage, ...]
    objective: Objective = "coordinates"
    markup: str = "ibug68"
    train: str = "train"
    val: str = "val"
    decoding: Decoding | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    crop: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    augmentation: Augmentation = Augmentation()
    seed: int = 0
    sources: tuple[Source, ...] = ()
    held_out: str = ""
    evaluate_every: int = 500
    data: str = "not stated"
    summary: str = "not stated"
    floor: str = ""
    start: str = ""
    backbone: str = ""


@dataclass(frozen=True)
class DetectionRecipe:
    """How a detector's weights are made.

    ``sure``: teacher's score from which a box counts as a face; below it, it is neither face nor background.
    ``sizes``: sides of the composed pictures, step after step; the batch is the schedule's for the first of them and
    shrinks with the area. ``faces``: smallest face of a picture in pixels, and largest as a part of its side.
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
    evaluate_every: int = 500
    data: str = "not stated"
    summary: str = "not stated"
    floor: str = ""


Recipe = LandmarkRecipe | DetectionRecipe
T = TypeVar("T")


def names() -> list[str]:
    """The recipes that come with the package; those of ``papers/`` are the papers' own."""
    found = (path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.toml"))
    return sorted(name for name in found if not name.startswith("mixtures/"))


def find(config: str) -> Path:
    """The file of a packaged recipe's name, or ``config`` as a path. Raises InputError listing the names."""
    packaged = CONFIGS / f"{config}.toml"
    if packaged.is_file():
        return packaged
    path = Path(config)
    if path.suffix == ".toml" and path.is_file():
        return path
    raise InputError(f"{config!r} is neither a .toml file nor a packaged recipe; those are {', '.join(names())}")


def read(config: str | Path) -> Recipe:
    """The recipe of a packaged name or a TOML file.

    Raises InputError naming the entry that is unknown, missing or of the wrong type, and UnknownModelError.
    """
    path = find(str(config))
    values = _toml(path)
    if not isinstance(model := values.get("model"), str):
        raise InputError(f'{path.name} does not say which model it trains: add model = "..."')
    try:
        task = info(model).task
    except UnknownModel as error:
        raise UnknownModelError(f"{path.name}: {error}") from error
    if task == "detection":
        return _build(DetectionRecipe, values, path.name)
    recipe = _build(LandmarkRecipe, _with_mixture(values, path.name), path.name)
    markups.get(recipe.markup)
    if recipe.decoding not in (None, *list_decoders()):
        raise InputError(f"{path.name}: decoding is one of {', '.join(list_decoders())}, not {recipe.decoding!r}")
    if not recipe.stages:
        raise InputError(f"{path.name} has no [[stages]]")
    return recipe


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


def _with_mixture(values: dict[str, Any], where: str) -> dict[str, Any]:
    """A recipe's entries with those of its mixture, none of which it may have of its own."""
    if (name := values.pop("mixture", None)) is None:
        return values
    known = sorted(path.stem for path in MIXTURES.glob("*.toml"))
    if name not in known:
        raise InputError(f"{where}: mixture is one of {', '.join(known)}, not {name!r}")
    mixture = _toml(MIXTURES / f"{name}.toml")
    if both := sorted(set(values) & set(mixture)):
        raise InputError(f"{where} has {', '.join(both)} of its own beside the mixture {name}")
    return values | mixture


def _toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return dict(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error


def _build(kind: type[T], values: Any, where: str) -> T:
    """A dataclass from a table, strictly."""
    if not isinstance(values, dict):
        raise InputError(f"{where} must be a table, not {values!r}")
    assert is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    entries = {entry.name: entry for entry in fields(kind)}
    if unknown := sorted(set(values) - set(entries)):
        raise InputError(f"{where} has unknown entries {', '.join(unknown)}; known: {', '.join(entries)}")
    required = [n for n, e in entries.items() if e.default is MISSING and e.default_factory is MISSING]
    if missing := [name for name in required if name not in values]:
        raise InputError(f"{where} lacks {', '.join(missing)}")
    return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return _build(typing.cast("type[Any]", hint), value, where)
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
        return float(value)
    expected = dict if origin is not None else hint
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise InputError(f"{where} must be {getattr(expected, '__name__', expected)}, not {value!r}")
    if isinstance(value, dict):
        return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
    return value
