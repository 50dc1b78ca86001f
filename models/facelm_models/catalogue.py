"""Which networks there are, and what the weights that come with the package say of themselves. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES: Mapping[str, tuple[str, ...]] = {
    "fan": ("fan2", "fan4"),
    "hourglass": ("hourglass4",),
    "hrnet": ("hrnet18",),
    "lotr": ("lotr_hr_plus", "lotr_m", "lotr_m_128", "lotr_m_plus", "lotr_r_plus"),
    "mtld": ("mtld_r101", "mtld_r18", "mtld_r50"),
    "retinaface": ("retinaface_mnet025", "retinaface_r50"),
    "slpt": ("slpt_hrnet18", "slpt_hrnet18_12l", "slpt_resnet34"),
}
"""The files of this package that register networks, and the names of their variants."""

CHECKPOINTS = Path(__file__).with_name("checkpoints")


@dataclass(frozen=True)
class Entry:
    """A network, and its card where its weights come with the package.

    ``points`` and ``size`` (pixels of the crop's side) are those of the weights; ``accuracy`` is what their card says.
    """

    name: str
    points: int | None = None
    size: int | None = None
    accuracy: Mapping[str, Any] | None = None


def checkpoint(name: str) -> Path | None:
    """Return the weights file of a network that comes with the package, or None."""
    path = CHECKPOINTS / f"{name}.safetensors"
    return path if path.is_file() else None


def entries() -> list[Entry]:
    """Return every network of the package by name."""
    return [_entry(name) for name in sorted(name for names in ARCHITECTURES.values() for name in names)]


def _entry(name: str) -> Entry:
    path = checkpoint(name)
    if path is None:
        return Entry(name)
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        card = json.loads((file.metadata() or {}).get("facelm", "{}"))
    config = card.get("config", {})
    return Entry(name, config.get("num_landmarks"), config.get("size"), card.get("accuracy", {}))
