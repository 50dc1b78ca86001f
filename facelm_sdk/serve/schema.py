"""The OpenAPI description: the published JSON schema of faces, the requests that are taken, and every error."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI

from ..interop import json_schema
from .body import FORM
from .problems import Problem

FACES: dict[str, Any] = {
    "description": "The picture's faces, as `facelm align` writes them.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Faces"}}},
}
TEXT: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "A form without a file or with several."},
    408: {"model": Problem, "description": "The body was not sent in time."},
    413: {"model": Problem, "description": "The body has too many bytes."},
    415: {"model": Problem, "description": "Neither a picture nor a form."},
    422: {"model": Problem, "description": "The file is damaged, no picture, or has too many pixels."},
    500: {"model": Problem, "description": "The server failed."},
    503: {
        "model": Problem,
        "description": "All places are taken, the answer took too long, or the server is stopping: ask again later.",
        "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}},
    },
}

_FILE = {"type": "string", "format": "binary"}
PICTURE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A picture file as it is, or the one file of a form.",
        "content": {
            "image/*": {"schema": _FILE},
            "application/octet-stream": {"schema": _FILE},
            FORM: {"schema": {"type": "object", "required": ["file"], "properties": {"file": _FILE}}},
        },
    }
}


def add_schema(app: FastAPI) -> None:
    """Put the published schema among the components of an app's description."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        description = describe()  # made once, and kept by the app
        description["components"]["schemas"].update(_components())
        return description

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _components() -> dict[str, Any]:
    """The published schema as ``Faces``, and its parts, ``face``, ``point`` and ``probability``, beside it."""
    schema = json.loads(json.dumps(json_schema()).replace("#/$defs/", "#/components/schemas/"))
    parts = schema.pop("$defs")
    return {"Faces": {key: value for key, value in schema.items() if not key.startswith("$")}, **parts}
