"""COCO's key-point JSON, as pycocotools, MMPose and supervision read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .. import markup as markups
from ..errors import InputError
from ..transform import finite
from ..types import Face, rounded


@dataclass(frozen=True, slots=True, eq=False)
class CocoImage:
    """A picture as COCO has it: its name, its size in pixels, and its faces, all of one markup."""

    file_name: str
    width: int
    height: int
    faces: Iterable[Face]


def to_coco(images: Iterable[CocoImage]) -> dict[str, Any]:
    """The JSON-ready data set. Its one category is ``face``, with the markup's points and lines.

    A box is (x, y, width, height), a point (x, y, 2), 2 being "visible"; ``score`` and the points' own scores as
    ``keypoint_scores`` stand where there are some. Raises InputError where the faces are of several markups.
    """
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    found: set[str] = set()
    for image_id, image in enumerate(images, start=1):
        pictures.append({"id": image_id, "file_name": image.file_name, "width": image.width, "height": image.height})
        for face in image.faces:
            found.add(face.markup)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": 1, **_annotation(face)}
            )
    if len(found) > 1:
        raise InputError(f"a COCO category has points of one markup, and the faces are of {', '.join(sorted(found))}")
    return {
        "info": {"description": "faces, made by facelm align"},
        "images": pictures,
        "annotations": annotations,
        "categories": [_category(name) for name in found] or [{"id": 1, "name": "face", "supercategory": "person"}],
    }


def from_coco(data: Mapping[str, Any]) -> dict[str, list[Face]]:
    """The faces of each picture, by its file name, [] where it has none.

    The number of a category's points says the markup. Raises InputError for another JSON and for points that are not
    labelled (visibility 0), MarkupError for a number of points that no markup has.
    """
    try:
        names = {image["id"]: str(image["file_name"]) for image in data["images"]}
        faces: dict[str, list[Face]] = {name: [] for name in names.values()}
        for annotation in data["annotations"]:
            faces[names[annotation["image_id"]]].append(_face(annotation))
    except (KeyError, TypeError) as error:
        raise InputError(f"not COCO's key-point JSON: {type(error).__name__} {error}") from error
    return faces


def _annotation(face: Face) -> dict[str, Any]:
    x1, y1, x2, y2 = rounded(face.bbox)
    width, height = round(x2 - x1, 3), round(y2 - y1, 3)
    points = [value for x, y in rounded(face.landmarks) for value in (x, y, 2)]
    return {
        "bbox": [x1, y1, width, height],
        "area": round(width * height, 3),
        "iscrowd": 0,
        "keypoints": points,
        "num_keypoints": len(face.landmarks),
        **({} if face.score is None else {"score": round(face.score, 3)}),
        **({} if face.scores is None else {"keypoint_scores": rounded(face.scores)}),
    }


def _category(name: str) -> dict[str, Any]:
    markup = markups.get(name)
    part = {
        index: group for group in ("jaw", "brows", "eyes", "nose", "mouth") for index in markup.groups.get(group, ())
    }
    lines = {(a + 1, b + 1) for run in markup.polylines for a, b in pairwise(run)}  # counted from 1
    return {
        "id": 1,
        "name": "face",
        "supercategory": "person",
        "keypoints": [f"{part[index]}_{index}" for index in range(markup.num_points)],
        "skeleton": [list(line) for line in sorted(lines)],
    }


def _face(annotation: Mapping[str, Any]) -> Face:
    values = np.asarray(annotation["keypoints"], object)
    if values.ndim != 1 or len(values) % 3:
        raise InputError(f"annotation {annotation.get('id')}: keypoints are x, y, visibility, one after the other")
    rows = values.reshape(-1, 3)
    if (rows[:, 2] == 0).any():
        raise InputError(
            f"annotation {annotation.get('id')} has points that are not labelled; a face needs all of them"
        )
    x, y, width, height = finite(annotation["bbox"], (4,), f"annotation {annotation.get('id')}: a bbox").tolist()
    return Face.of_landmarks(
        rows[:, :2],
        markups.with_points(len(rows)).name,
        bbox=(x, y, x + width, y + height),
        score=annotation.get("score"),
        scores=annotation.get("keypoint_scores"),
    )
