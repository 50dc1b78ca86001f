"""Which networks there are, and what their weights in facelm-weights say of themselves. Imports no torch."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES: Mapping[str, tuple[str, ...]] = {
    "fan": ("fan2", "fan2_s", "fan4"),
    "hourglass": ("hourglass4",),
    "hrnet": ("hrnet18",),
    "lotr": ("lotr_hr_plus", "lotr_m", "lotr_m_128", "lotr_m_plus", "lotr_r_plus"),
    "mtld": ("mtld_m", "mtld_r101", "mtld_r18", "mtld_r50"),
    "pyramid": ("pyramid_m",),
    "retinaface": ("retinaface_lite", "retinaface_mnet025", "retinaface_r50"),
    "slpt": ("slpt_hrnet18", "slpt_hrnet18_12l", "slpt_resnet34"),
}
"""The files of this package that register networks, and the names of their variants."""

WEIGHTS_PACKAGE = "facelm_weights"
CHECKOUT = Path(__file__).parents[1] / "weights" / WEIGHTS_PACKAGE
"""Where a checkout of this repository has what facelm-weights installs."""
INSTALL = "pip install facelm-weights"


@dataclass(frozen=True)
class Entry:
    """A network, and its card where its weights are at hand.

    ``points`` and ``size`` (pixels of the crop's side) are those of the weights; ``accuracy`` is what their card says.
    """

    name: str
    points: int | None = None
    size: int | None = None
    accuracy: Mapping[str, Any] | None = None

    @property
    def has_weights(self) -> bool:
        """Whether trained weights are at hand."""
        return self.accuracy is not None


def checkpoint(name: str) -> Path | None:
    """Return the weights file of a network, of the checkout or of facelm-weights; None where there is none."""
    if (folder := weights_folder()) is None:
        return None
    path = folder / f"{name}.safetensors"
    return path if path.is_file() else None


def weights_folder() -> Path | None:
    """Return where weights lie: in the checkout, or where facelm-weights is installed; None where it is not."""
    if CHECKOUT.is_dir():
        return CHECKOUT
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def no_weights(name: str) -> str:
    """Say that there are no weights of a network, and which line to type where they may be had."""
    if weights_folder() is None:
        return f"there are no weights of {name}: facelm-weights is not installed; type: {INSTALL}"
    have = ", ".join(entry.name for entry in entries() if entry.has_weights)
    return f"no weights of {name} come with facelm-weights; those of {have} do"


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
