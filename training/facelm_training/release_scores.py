"""The scores of a released detector on the val frames, through the runtime as users run it.

:mod:`facelm_training.evaluation` has those of landmark models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from facelm_sdk import Detector
from facelm_sdk.boxes import iou

from .data import detection_frames

SURE = 0.8


def detection_scores(detector: Detector, data: Path) -> dict[str, Any]:
    """Recall and precision at IoU 0.5 on the val frames, and scenes without a face where none is found.

    A face is a box of the teacher with a score of at least 0.8; a detection on a less certain box is not counted.
    """
    frames = detection_frames(data, "val")
    kinds: dict[str, list[int]] = {}
    clean = empty = 0
    for frame in track(frames, "detecting"):
        found = detector(frame.image())
        sure = frame.scores >= SURE
        overlap = iou(found.boxes[:, None], frame.boxes)
        hits = overlap >= 0.5
        recalled = int(hits[:, sure].any(0).sum())
        false = int((~hits.any(1) & ~(overlap[:, ~sure] > 0.2).any(1)).sum())
        row = kinds.setdefault(frame.name.split("_")[0], [0, 0, 0])
        row[0], row[1], row[2] = row[0] + int(sure.sum()), row[1] + recalled, row[2] + false
        if frame.name.startswith("bsds") and not len(frame.boxes):
            empty, clean = empty + 1, clean + int(len(found) == 0)
    total = np.sum(list(kinds.values()), axis=0).tolist()
    rows = {**kinds, "all": total}
    return {
        **{
            kind: {
                "faces": faces,
                "recall": round(100 * found / max(faces, 1), 2),
                "precision": round(100 * found / max(found + false, 1), 2),
                "false boxes": false,
            }
            for kind, (faces, found, false) in rows.items()
        },
        "scenes without a face": {
            "pictures": empty,
            "none found": clean,
            "percent": round(100 * clean / max(empty, 1), 1),
        },
    }
