"""Model names -> frozen configs -> torch modules."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from torch import nn

# The files that register variants; imported when a name is first looked up.
ARCHITECTURES = ("fan", "hourglass", "hrnet", "lotr", "mtld", "retinaface", "slpt")

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

ALIGNED = {"kind": "kps5", "zoom": 0.875, "shift": (0.5, 22.5)}
"""The crop this project trains on: the ArcFace template in a square of 128 ArcFace pixels, moved down for chins."""

Decoding = Literal["coordinates", "argmax", "local_soft_argmax", "expectation"]
"""What a landmark network's output is and how points come from it: fractions of the crop, or heatmaps by one of
:mod:`facelm_models.heatmaps`' decoders."""


class UnknownModel(KeyError):
    """No variant is registered under that name; the message lists those there are."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class ModelInfo:
    """A registered variant.

    ``input_size``: side of the square crop in pixels (for a detector, the size its figures are stated at). ``mean`` and
    ``std``: per channel, of 0..255 values, in the network's own ``channels`` order. ``crop``: how a crop is cut, the
    options of the runtime's CropRecipe. ``decoding``: see Decoding. ``offset``: pixel = fraction * S + offset; -0.5
    where fractions run from edge to edge, 0 where a network was trained on pixel / S.
    """

    name: str
    task: Literal["landmarks", "detection"]
    build: Callable[[Any], nn.Module]
    config: Any
    input_size: int
    channels: Literal["rgb", "bgr"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    paper: str = ""
    crop: Mapping[str, Any] = field(default_factory=lambda: dict(ALIGNED))
    decoding: Decoding = "coordinates"
    offset: float = -0.5


_registry: dict[str, ModelInfo] = {}


def register(model: ModelInfo) -> ModelInfo:
    """Add a variant. Raises ValueError, and leaves the registry as it was, when the name is taken."""
    if model.name in _registry:
        raise ValueError(f"a model named {model.name!r} is already registered")
    _registry[model.name] = model
    return model


def _load_architectures() -> None:
    for module in ARCHITECTURES:
        importlib.import_module(f"{__package__}.{module}")


def list_models(task: str | None = None) -> list[str]:
    """Names of all variants, or of those with that ``task`` (``landmarks`` or ``detection``)."""
    _load_architectures()
    return sorted(name for name, model in _registry.items() if task in (None, model.task))


def info(name: str) -> ModelInfo:
    """What is registered under ``name``. Raises UnknownModel (a KeyError) that lists the names."""
    _load_architectures()
    if name not in _registry:
        near = difflib.get_close_matches(name, _registry, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownModel(f"no model is named {name!r}.{hint} Models: {', '.join(list_models())}")
    return _registry[name]


def create(name: str, **overrides: Any) -> nn.Module:
    """Build a variant with random weights, e.g. ``create("lotr_m", num_landmarks=98)``.

    ``overrides`` replace entries of the variant's frozen config; TypeError names an entry it does not have.
    """
    model = info(name)
    allowed = {entry.name for entry in fields(model.config)}
    if unknown := set(overrides) - allowed:
        raise TypeError(f"{name} has no option {sorted(unknown)}; options: {sorted(allowed)}")
    return model.build(replace(model.config, **overrides))
