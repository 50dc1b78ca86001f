"""Score other people's 68-point landmarkers on 300-W as ``facelm eval`` scores ours.

``python -m training.tools.peers dlib:shape_predictor_68_face_landmarks.dat --data 300w/common:DIR --out FILE.json``

PEER is ``dlib:FILE`` (the package dlib and its published predictor), ``pfld:FILE`` (``onnx/pfld.onnx`` of
cunjian/pytorch_face_landmark) or ``facemesh`` (the package mediapipe). Each gets the box that it is known to do best
by; what that is stands in the file. FILE keeps the scores of other peers that it holds already.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.measure.peer_scores import as_68
from facelm_sdk.aligner import MATCHING_IOU
from facelm_sdk.boxes import most_overlapping
from facelm_sdk.errors import InputError
from facelm_sdk.files import write_bytes
from facelm_training import datasets
from facelm_training.datasets import Sample
from facelm_training.evaluation import score

Predict = Callable[[NDArray[np.uint8], Sample], "NDArray[np.float64] | None"]


def dlib(file: str) -> tuple[Predict, str]:
    """Its regression trees of 2014, by the box of its own detector."""
    import dlib as library

    detector, predictor = library.get_frontal_face_detector(), library.shape_predictor(file)

    def predict(image: NDArray[np.uint8], sample: Sample) -> NDArray[np.float64] | None:
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        found = detector(rgb, 1)
        if not len(found):
            return None
        boxes = np.array([[r.left(), r.top(), r.right(), r.bottom()] for r in found], np.float32)
        best = most_overlapping(sample.landmark_box, boxes, MATCHING_IOU)
        if best is None:
            return None
        shape = predictor(rgb, found[best])
        return np.array([[part.x, part.y] for part in shape.parts()], np.float64)

    version = importlib.metadata.version("dlib-bin")
    return predict, f"dlib {version}, the box of its own HOG detector, pictures doubled; see what it was trained on"


def pfld(file: str) -> tuple[Predict, str]:
    """PFLD at 112 pixels, by a square of 1.1 times the annotated landmarks' box: an oracle."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(image: NDArray[np.uint8], sample: Sample) -> NDArray[np.float64]:
        left, top, right, bottom = sample.landmark_box.astype(np.float64)
        side = 1.1 * max(right - left, bottom - top)
        start = np.array([(left + right - side) / 2, (top + bottom - side) / 2])
        scale = 112 / side
        matrix = np.array([[scale, 0, -scale * start[0]], [0, scale, -scale * start[1]]])
        crop = cv2.warpAffine(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), matrix, (112, 112), flags=cv2.INTER_LINEAR)
        points = session.run(None, {name: crop.astype(np.float32).transpose(2, 0, 1)[None] / 255})[0]
        return np.asarray(points.reshape(-1, 2) * side + start, np.float64)

    return predict, "a square of 1.1 times the annotated landmarks' box: an oracle"


def facemesh(file: str) -> tuple[Predict, str]:
    """MediaPipe's mesh, whose vertices nearest to the 68 points are taken; by its own detector."""
    from mediapipe.python.solutions import face_mesh

    mesh = face_mesh.FaceMesh(static_image_mode=True, max_num_faces=5, refine_landmarks=False)

    def predict(image: NDArray[np.uint8], sample: Sample) -> NDArray[np.float64] | None:
        found = mesh.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).multi_face_landmarks or []
        faces = [as_68(np.array([[p.x, p.y] for p in one.landmark])) for one in found]
        if not faces:
            return None
        faces = [face * (image.shape[1], image.shape[0]) - 0.5 for face in faces]
        boxes = np.array([[*face.min(0), *face.max(0)] for face in faces], np.float32)
        best = most_overlapping(sample.landmark_box, boxes, MATCHING_IOU)
        return None if best is None else np.asarray(faces[best])

    version = importlib.metadata.version("mediapipe")
    return predict, f"mediapipe {version}, its own detector; 68 of the mesh's vertices, which are not iBUG's points"


PEERS: dict[str, Callable[[str], tuple[Predict, str]]] = {"dlib": dlib, "pfld": pfld, "facemesh": facemesh}


def main(
    peers: Annotated[list[str], typer.Argument(metavar="PEER...")],
    data: Annotated[str, typer.Option(metavar="NAME:DIR")],
    out: Annotated[Path, typer.Option(metavar="FILE.json")],
) -> None:
    """Score peers, one after the other."""
    dataset = datasets.open(data)
    metric = dataset.metrics[0]
    record: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {}
    for spec in peers:
        name, _, file = spec.partition(":")
        if name not in PEERS:
            raise InputError(f"a peer is one of {', '.join(PEERS)}, not {name!r}")
        predict, protocol = PEERS[name](file)
        points = [predict(sample.image(), sample) for sample in dataset]
        lost = np.full((68, 2), np.nan)
        scores = score(dataset, np.stack([lost if one is None else one for one in points]), "ibug68")
        subset = next(iter(scores.rows(metric)))
        record[name] = {
            "data": data.partition(":")[0],
            "protocol": protocol,
            "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None,
            **{key: round(value, 3) for key, value in scores.rows(metric)[subset].items()},
            "regions": {part: round(value, 3) for part, value in scores.regions()[subset].items()},
        }
        typer.echo(f"{name}: {record[name]}")
        write_bytes(out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    typer.run(main)
