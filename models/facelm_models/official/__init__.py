"""Checkpoints of the papers' own code: which variant each fits, its key names, and how its networks want to be fed."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..registry import Decoding

# Source name -> the module of this package that describes it in its SOURCES.
MODULES = {
    "slpt": "slpt",
    "hrnet": "hrnet",
    "star": "star",
    "fan": "fan",
    "retinaface": "retinaface",
    "retinaface_1mb": "retinaface",
}


class UnknownSource(KeyError):
    """No source has that name; the message lists those there are."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Source:
    """The conventions of one public code base.

    ``models``: the variants its checkpoints fit. ``keys``: for a network of ours, the complete table official key ->
    our key. ``unused``: patterns of official keys that its own code never reads. ``absent``: our keys that its
    checkpoints do not hold (SLPT's mean face). ``inside``: names under which a checkpoint may hold its state dict.
    ``overrides``: config entries a network must have for these weights. ``crop``, ``decoding`` and ``offset`` replace
    the variant's own (see ModelInfo); None keeps them.
    """

    name: str
    models: tuple[str, ...]
    keys: Callable[[nn.Module], dict[str, str]]
    unused: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    inside: tuple[str, ...] = ("state_dict", "net")
    overrides: Mapping[str, Any] = field(default_factory=dict)
    crop: Mapping[str, Any] | None = None
    decoding: Decoding | None = None
    offset: float | None = None

    def is_unused(self, key: str) -> bool:
        """Return whether the official code holds ``key`` without reading it."""
        return any(re.fullmatch(pattern, key) for pattern in self.unused)


def list_sources() -> list[str]:
    """Return the names of the code bases whose checkpoints load."""
    return sorted(MODULES)


def get(name: str) -> Source:
    """Return the source called ``name``. Raises UnknownSource, a KeyError that lists the names."""
    if name not in MODULES:
        raise UnknownSource(f"no checkpoints of {name!r} are known; sources: {', '.join(list_sources())}")
    sources: dict[str, Source] = importlib.import_module(f"{__name__}.{MODULES[name]}").SOURCES
    return sources[name]
