"""Model names -> frozen configs -> torch modules; decoding names -> how points come from a network's output."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import nn

from .catalogue import ARCHITECTURES

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

ALIGNED = {"kind": "kps5", "zoom": 0.875, "shift": (0.5, 22.5)}
"""The crop this project trains on: the ArcFace template in a square of 128 ArcFace pixels, moved down for chins."""

Decoding = str
"""The name of a registered :class:`Decoder`, as model infos, recipes, cards and ``--decoding`` hold it.

Parameters of the decoder may follow: ``local_soft_argmax:window=7,temperature=5``.
"""

Points = tuple[torch.Tensor, torch.Tensor | None]
"""(n, L, 2) points as fractions of the crop, and (n, L) scores in [0, 1] or None."""

COORDINATES = "(n, L, 2) fractions of the crop"
HEATMAPS = "(n, L, h, w) heatmaps"
CORRECTED = "(n, L, h h + 2) square heatmaps, row by row, and corrections"


class UnknownModel(KeyError):
    """No variant is registered under that name; the message lists those there are."""

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownDecoding(KeyError):
    """No decoder is registered under that name; the message lists those there are."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Decoder:
    """One way from a landmark network's output to points, in training, evaluation and every exported file.

    ``name``: what ModelInfo, recipes, cards and ``--decoding`` call it. ``reference``: the readable, differentiable
    function of the network's output, one tensor, to :data:`Points`; ``window`` and ``temperature`` are its keyword
    arguments where they are not None. ``has_scores``: whether its scores say how sure a point is; else they are
    dropped. ``takes``: the output's shape and meaning, in words; decoders of the same may replace each other.
    ``export_twin``: the same function in operators that every backend has; None takes the export's twin of
    ``reference`` if there is one (:mod:`facelm_export.ops.decoding`), and ``reference`` itself otherwise.
    """

    name: str
    reference: Callable[..., Points]
    has_scores: bool
    takes: str = HEATMAPS
    window: int | None = None
    temperature: float | None = None
    export_twin: Callable[..., Points] | None = None

    def __call__(self, output: torch.Tensor) -> Points:
        """Decode ``output`` by the reference."""
        return self.run(self.reference, output)

    def run(self, function: Callable[..., Points], output: torch.Tensor) -> Points:
        """Decode ``output`` by ``function``, the reference or a twin of it, with this decoder's parameters."""
        parameters = {"window": self.window, "temperature": self.temperature}
        points, scores = function(output, **{key: value for key, value in parameters.items() if value is not None})
        return points, scores if self.has_scores else None

    @property
    def of_maps(self) -> bool:
        """Say whether the output is maps, whose cells must not be rounded to each other's values."""
        return self.takes != COORDINATES


@dataclass(frozen=True)
class ModelInfo:
    """A registered variant.

    ``input_size``: side of the square crop in pixels (for a detector, the size its figures are stated at). ``mean`` and
    ``std``: per channel, of 0..255 values, in the network's own ``channels`` order. ``crop``: how a crop is cut, the
    options of the runtime's CropRecipe. ``decoding``: the name of its Decoder. ``offset``: pixel = fraction * S +
    offset; -0.5 where fractions run from edge to edge, 0 where a network was trained on pixel / S.
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
_decoders: dict[str, Decoder] = {}


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
    """Return the names of all variants, or of those with that ``task`` (``landmarks`` or ``detection``)."""
    _load_architectures()
    return sorted(name for name, model in _registry.items() if task in (None, model.task))


def info(name: str) -> ModelInfo:
    """Return what is registered under ``name``. Raises UnknownModel (a KeyError) that lists the names."""
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


def register_decoder(added: Decoder) -> Decoder:
    """Add a way of decoding. Raises ValueError, and leaves the registry as it was, when the name is taken."""
    _load_decoders()
    if added.name in _decoders:
        raise ValueError(f"a decoder named {added.name!r} is already registered")
    _decoders[added.name] = added
    return added


def _load_decoders() -> None:
    importlib.import_module(f"{__package__}.heatmaps")


def list_decoders() -> list[str]:
    """Return the names of all decoders."""
    _load_decoders()
    return list(_decoders)


def decoder(name: Decoding) -> Decoder:
    """Return what is registered under ``name``, with the parameters that follow it after a colon.

    Raises UnknownDecoding (a KeyError) that lists the names, or says which parameters the decoder has.
    """
    _load_decoders()
    head, colon, parameters = name.partition(":")
    if head not in _decoders:
        raise UnknownDecoding(f"no decoding is named {head!r}; decodings: {', '.join(list_decoders())}")
    return _with_parameters(_decoders[head], parameters) if colon else _decoders[head]


def _with_parameters(base: Decoder, text: str) -> Decoder:
    own = [key for key in ("window", "temperature") if getattr(base, key) is not None]
    values: dict[str, float] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        try:
            values[key] = int(value) if key == "window" else float(value)
        except ValueError:
            values[key] = 0
        if key not in own or not 0 < values[key] < math.inf or (key == "window" and values[key] % 2 == 0):
            has = " and ".join({"window": "an odd window", "temperature": "a temperature above 0"}[one] for one in own)
            raise UnknownDecoding(
                f"{base.name}:{text} is no decoding: {base.name} has {has or 'no parameters'}"
                + (f", as {base.name}:{','.join(f'{one}={getattr(base, one):g}' for one in own)}" if own else "")
            )
    name = f"{base.name}:{','.join(f'{key}={values[key]:g}' for key in own if key in values)}"
    return replace(base, name=name, **values)  # type: ignore[arg-type]
