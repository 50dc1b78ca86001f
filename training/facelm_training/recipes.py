"""The recipes of the weights that come with the package."""

from __future__ import annotations

from .detection import DetectionRecipe
from .landmarks import LandmarkRecipe, Stage
from .loop import Schedule

LOTR_M = LandmarkRecipe(
    model="lotr_m",
    stages=(
        Stage("pooled-96", "pooled", 96, Schedule(steps=3500, rate=1.5e-3, final_rate=5e-4, decay=0.5)),
        Stage("full-128", "full", 128, Schedule(steps=3200, rate=1e-3, final_rate=4e-4, decay=0.3)),
        Stage("full-192", "full", 192, Schedule(steps=1800, rate=6e-4, warmup=50)),
    ),
)

RETINAFACE_MNET025 = DetectionRecipe(
    model="retinaface_mnet025",
    schedule=Schedule(steps=8000, batch=16, rate=1.5e-3, decay=0.8),
    evaluate_every=1000,
)

RECIPES: dict[str, LandmarkRecipe | DetectionRecipe] = {r.model: r for r in (LOTR_M, RETINAFACE_MNET025)}
