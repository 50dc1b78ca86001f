"""Faces to and from other people's tools and files, a module each.

``coco`` and ``pts``, ``dlib`` and ``table`` (a pandas row, CSV, parquet) are files' formats; ``supervision`` and
``insightface`` the libraries' own classes. Nothing but what is asked for is imported.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..aligner import Aligner
    from ..images.picture import Picture
    from ..types import Face

SCHEMA = Path(__file__).with_name("faces.schema.json")
"""The JSON schema (draft 2020-12) of what ``facelm align`` writes; its ``#/$defs/face`` is that of Face.to_dict."""


def json_schema() -> dict[str, Any]:
    """The schema of :data:`SCHEMA`."""
    schema: dict[str, Any] = json.loads(SCHEMA.read_text("utf-8"))
    return schema


def record(source: str, picture: Picture, faces: list[Face], aligner: Aligner) -> dict[str, Any]:
    """Return what the schema describes: a picture, called ``source``, and the faces that ``aligner`` found in it."""
    return {
        "source": source,
        "width": picture.width,
        "height": picture.height,
        "model": (aligner.pipeline or aligner.landmarker).spec.name,
        "detector": None if aligner.detector is None else aligner.detector.spec.name,
        "faces": [face.to_dict() for face in faces],
    }
