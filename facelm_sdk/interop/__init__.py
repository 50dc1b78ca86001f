"""Faces to and from other people's tools and files, a module each.

``coco`` and ``pts``, ``dlib`` and ``table`` (a pandas row, CSV, parquet) are files' formats; ``supervision`` and
``insightface`` the libraries' own classes. Nothing but what is asked for is imported.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).with_name("faces.schema.json")
"""The JSON schema (draft 2020-12) of what ``facelm align`` writes; its ``#/$defs/face`` is that of Face.to_dict."""


def json_schema() -> dict[str, Any]:
    """The schema of :data:`SCHEMA`."""
    schema: dict[str, Any] = json.loads(SCHEMA.read_text("utf-8"))
    return schema
