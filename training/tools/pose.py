"""Measure the error of ``facelm_sdk.pose`` on heads of known pose, by yaw.

``python training/tools/pose.py --data DIR --out training/results/pose.json`` measures two things:

``heads``: ICT-FaceKit's head with random identities and expressions, turned, and its 68 vertices seen by a pinhole
camera 60 cm to 4 m away. The points are exact; the error is that of one mean head for all people.

``photographs``: 300-W's common test faces, turned by the fitted head (:mod:`facelm_training.turned`), found and marked
by ``Aligner()``. The pose that they are compared with is the fitted head's, which has an error of its own. ``labels``:
the same by the annotated points, turned with the photograph, so what is not due to the landmarks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from facelm_sdk import Aligner
from facelm_sdk.aligner import MATCHING_IOU
from facelm_sdk.boxes import most_overlapping
from facelm_sdk.files import write_bytes
from facelm_sdk.pose import HeadPose, head_pose
from facelm_training import datasets
from facelm_training.turned import FILE, WORST_FIT, Head, fit, turn

Floats = NDArray[np.float64]
BINS = (0, 15, 30, 45, 60)
YAWS = (0, 20, 35, 50)
DEPTH = np.array([1.0, 1.0, -1.0])  # turned.py's depth runs to the viewer, a pose's away from it


def error(found: HeadPose, known: HeadPose) -> Floats:
    """The errors (3,) of yaw, pitch and roll, degrees."""
    return np.abs((np.array(found) - known + 180) % 360 - 180)


def heads(head: Head, count: int, rng: np.random.Generator) -> Iterable[tuple[HeadPose, HeadPose]]:
    """What is found of each head, and its pose."""
    points = head.landmarks
    expressions = len(head.shapes) - head.identities
    for _ in range(count):
        known = HeadPose(rng.uniform(-60, 60), rng.uniform(-30, 30), rng.uniform(-30, 30))
        identity = rng.normal(size=head.identities)
        expression = np.where(rng.random(expressions) < 0.1, rng.uniform(0, 1, expressions), 0)
        shape = head.neutral[points] + np.tensordot(np.concatenate([identity, expression]), head.shapes[:, points], 1)
        placed = ((shape - shape.mean(0)) * DEPTH) @ known.rotation.T + (0, 0, rng.uniform(60, 400))
        yield head_pose(placed[:, :2] / placed[:, 2:] * 1000), known


def photographs(
    head: Head, samples: Iterable[datasets.Sample], rng: np.random.Generator
) -> Iterable[tuple[HeadPose | None, HeadPose, HeadPose]]:
    """What is found of each turned photograph, None where no face is; what its labels give; and its pose."""
    aligner = Aligner(variant="fp32")
    for sample in samples:
        points = sample.points.astype(np.float64)
        fitted = fit(head, points)
        if fitted.error > WORST_FIT:
            continue
        side = np.sign(fitted.yaw) or 1.0
        for yaw in YAWS:
            wanted = side * max(yaw + rng.uniform(-7, 7), abs(fitted.yaw))
            one = turn(sample.image(), points, fitted, head, wanted - fitted.yaw, rng.uniform(-12, 12))
            known = HeadPose.of_rotation(one.rotation * np.outer(DEPTH, DEPTH))
            faces = aligner(one.image)
            box = np.concatenate([one.points.min(0), one.points.max(0)])
            best = most_overlapping(box, np.array([face.bbox for face in faces]).reshape(-1, 4), MATCHING_IOU)
            yield None if best is None else faces[best].pose, head_pose(one.points), known


def table(pairs: Iterable[tuple[HeadPose | None, HeadPose]]) -> dict[str, dict[str, Any]]:
    """Mean errors in degrees by the known yaw, and of all."""
    rows = [(abs(known.yaw), None if found is None else error(found, known)) for found, known in pairs]
    spans = {f"{low}-{high}": (low, high) for low, high in zip(BINS, (*BINS[1:], 90), strict=True)}
    result = {}
    for name, (low, high) in {**spans, "all": (0, 181)}.items():
        inside = [errors for yaw, errors in rows if low <= yaw < high]
        seen = np.array([errors for errors in inside if errors is not None]).reshape(-1, 3)
        if len(seen):
            means = dict(zip(HeadPose._fields, seen.mean(0).round(2).tolist(), strict=True))
            median = round(float(np.median(seen[:, 0])), 2)
            result[name] = {"faces": len(inside), "not_found": len(inside) - len(seen), **means, "median_yaw": median}
    return result


def main(
    data: Annotated[Path, typer.Option(help="the folder with ict_face_model.npz and 300w/")],
    out: Annotated[Path, typer.Option(metavar="FILE.json")],
    count: Annotated[int, typer.Option(help="how many heads")] = 2000,
    faces: Annotated[int, typer.Option(help="how many photographs are turned, four times each")] = 150,
) -> None:
    """Measure the pose of heads and of photographs, and write the tables."""
    head, rng = Head(data / FILE), np.random.default_rng(0)
    samples = list(datasets.open_below("300w/common:300w", data))
    chosen = [samples[i] for i in sorted(rng.choice(len(samples), min(faces, len(samples)), replace=False))]
    exact = table(heads(head, count, rng))
    turned = list(photographs(head, track(chosen, "turning"), rng))
    record = {
        "heads": exact,
        "photographs": table((found, known) for found, _, known in turned),
        "labels": table((by_labels, known) for _, by_labels, known in turned),
    }
    write_bytes(out, (json.dumps(record, indent=1) + "\n").encode())
    typer.echo(json.dumps(record, indent=1))


if __name__ == "__main__":
    typer.run(main)
