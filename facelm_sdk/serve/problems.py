"""Every error that a client sees: a status and one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

Kind = Literal[
    "bad_request",
    "not_found",
    "method_not_allowed",
    "timeout",
    "too_large",
    "unsupported_media_type",
    "not_a_picture",
    "overloaded",
    "stopping",
    "internal",
]
RETRY_AFTER = {"Retry-After": "1"}
"""Seconds: a full queue of small pictures is done in less."""


class Problem(BaseModel):
    """Why there is no answer."""

    error: Kind = Field(description="For programs.")
    message: str = Field(description="For people: what was wrong and what is accepted.")


class Refused(Exception):
    """Ends a request with a status and a :class:`Problem`."""

    def __init__(self, status: int, error: Kind, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.error, self.message, self.headers = status, error, message, headers

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse({"error": self.error, "message": self.message}, self.status, self.headers)


def add_handlers(app: FastAPI) -> None:
    """Let every error of an app be answered as a :class:`Problem`."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return error.response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        kinds: dict[int, Kind] = {404: "not_found", 405: "method_not_allowed"}
        message = f"{request.method} {request.url.path}: {error.detail}; /openapi.json says what there is"
        return Refused(
            error.status_code, kinds.get(error.status_code, "bad_request"), message, error.headers
        ).response()
