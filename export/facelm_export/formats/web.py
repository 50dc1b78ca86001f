"""Format ``web``: a folder that any static server can serve, and a module for the browser and Node.js.

The page, the detector, the landmark model and onnxruntime-web. The JavaScript stands in ``assets/web``; what it knows
of the models and thresholds comes from ``manifest.json``, which is written here of the contracts and of the runtime's
own constants.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import facelm_sdk
from facelm_sdk import aligner, boxes, detector, expression, pose, zoo
from facelm_sdk import markup as markups
from facelm_sdk.contract import DetectorSpec, LandmarkSpec, ModelSpec
from facelm_sdk.errors import InputError, MarkupError
from facelm_sdk.runtimes.base import RuntimeOptions
from facelm_sdk.runtimes.open import open_session

from . import ort_web

if TYPE_CHECKING:
    from ..job import ExportJob

ASSETS = Path(__file__).parents[1] / "assets" / "web"
PAGE = ("index.html", "page.js", "facelm.js", "pixels.js", "pose.js", "facelm.d.ts")
MANIFEST = "manifest.json"
WORKER = "sw.js"


def require() -> None:
    """Raise, before any work, where onnxruntime-web cannot be had: see :func:`.ort_web.archive`."""
    ort_web.archive()


def check(spec: ModelSpec) -> None:
    """Raise InputError for a model that is no landmark model."""
    if not isinstance(spec, LandmarkSpec):
        raise InputError(f"a site is of a landmark model, to which the embedded detector is added; {spec.name} is none")


def check_folder(path: Path) -> None:
    """Raise InputError where the folder has a page that is not an earlier export's."""
    if (path / "index.html").exists() and not (path / MANIFEST).exists():
        raise InputError(f"{path} has an index.html that is not of an export: give another folder")


def files(job: ExportJob) -> tuple[dict[Path, bytes], dict[str, Any]]:
    """The files of the site by their paths, and what the report should say beyond the usual."""
    assert isinstance(job.spec, LandmarkSpec)
    found = zoo.resolve(zoo.DETECTOR)
    _, detector_spec = open_session(zoo.DETECTOR, DetectorSpec, RuntimeOptions(licence_notice=False))
    made = {
        **{name: (ASSETS / name).read_bytes() for name in PAGE},
        "package.json": _json(_package(job.spec, detector_spec)),
        MANIFEST: _json(manifest(job.spec, detector_spec, job.batch)),
        "models/detector.onnx": found.path.read_bytes(),
        "models/landmarks.onnx": job.data,
        **{f"ort/{name}": data for name, data in ort_web.files(ort_web.archive()).items()},
    }
    version = hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in made.values())).hexdigest()[:16]
    made[WORKER] = (ASSETS / WORKER).read_bytes().replace(b"{{version}}", version.encode())
    about = {"web": {"detector": detector_spec.name, "onnxruntime-web": ort_web.VERSION, "version": version}}
    return {job.path / name: data for name, data in made.items()}, about


def manifest(landmarks: LandmarkSpec, found: DetectorSpec, batch: int | None) -> dict[str, Any]:
    """Return what the JavaScript must know, JSON-ready: contracts, thresholds, tables of points, the model of the head.

    A table's row holds the [index, weight] pairs of the landmarks of which a point is the mean.
    """
    markup = markups.get(landmarks.markup)
    return {
        "created_by": f"facelm-sdk {facelm_sdk.__version__}",
        "models": {
            "detector": {"file": "models/detector.onnx", "spec": found.to_dict()},
            "landmarks": {"file": "models/landmarks.onnx", "spec": landmarks.to_dict(), "batch": batch},
        },
        "detection": {name.lower(): getattr(detector, name) for name in _DETECTION},
        "alignment": {
            "min_presence": aligner.MIN_PRESENCE,
            "realign": aligner.REALIGN,
            "mean_kps": aligner.MEAN_KPS.tolist(),
        },
        "points": {
            "kps5": _table(markup, "kps5"),
            "ibug68": _table(markup, "ibug68"),
            "outline": _rows(boxes.outline_weights(markup.name)),
            "polylines": [list(line) for line in markup.polylines],
        },
        "head": {"points": pose.HEAD_68.tolist(), "solid": list(pose.SOLID), "distance": pose.DISTANCE},
        "openness": {
            "eyes": [_ratio(*eye) for eye in expression.EYES],
            "mouth": _ratio(*expression.MOUTH),
        },
    }


_DETECTION = (
    *("BASE_LONG_SIDE", "BASE_SHORT_SIDE", "MAX_UPSCALE", "MAX_PIXELS", "MIN_SIDE", "MAX_SIDE", "ZOOM", "ZOOMS"),
    *("SMALL_FACE", "LOW_SCORE", "CONTEXT", "FILLS_FRAME", "BORDER", "FAR", "THINNED", "MAX_IOU", "MAX_CONTAINED"),
)
"""The names of what :mod:`facelm_sdk.detector` goes by."""


def _table(markup: markups.Markup, target: str) -> list[list[list[float]]] | None:
    """The rows that make points of ``target`` of those of ``markup``; None where it does not mark them all."""
    one_hot = np.stack(
        [np.eye(markup.num_points)] * 2, axis=-1
    )  # (L, L, 2): the i-th face has its i-th point at (1, 1)
    try:
        return _rows(markups.convert(one_hot, markup.name, target)[..., 0].T)
    except MarkupError:
        return None


def _rows(weights: NDArray[np.floating[Any]]) -> list[list[list[float]]]:
    """The weights (m, L) that are not 0, as pairs."""
    return [[[int(index), float(row[index])] for index in np.flatnonzero(row)] for row in weights]


def _ratio(pairs: Sequence[Sequence[int]], width: Sequence[int]) -> dict[str, Any]:
    return {"pairs": [list(pair) for pair in pairs], "width": list(width)}


def _package(landmarks: LandmarkSpec, found: DetectorSpec) -> dict[str, Any]:
    """Return what npm and Node.js want to know of the folder."""
    return {
        "name": "facelm-site",
        "version": facelm_sdk.__version__,
        "description": f"Facial landmarks in the browser: {found.name} and {landmarks.name}",
        "license": f"SEE LICENSE IN {MANIFEST}",
        "private": True,
        "type": "module",
        "exports": {".": {"types": "./facelm.d.ts", "default": "./facelm.js"}},
    }


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, indent=1).encode()
