"""The app: POST a picture, get its faces; health and metrics."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from .. import __version__
from ..aligner import MEAN_KPS, Aligner
from ..errors import ImageError
from ..images.picture import Picture
from ..interop import record
from .body import Upload, check_type, read_body, upload
from .limits import MAX_PIXELS, Limits
from .metrics import Metrics
from .pool import Place, Pool
from .problems import RETRY_AFTER, Refused, add_handlers
from .schema import FACES, PICTURE, PROBLEMS, TEXT, add_schema

logger = logging.getLogger(__name__)

CLIENT_GONE = 499
"""Status, in the metrics alone, of a request whose client went before the answer: nginx's number for it."""


class Status(BaseModel):
    """Of /healthz and /readyz."""

    status: Literal["ok", "stopping"]


def create_app(aligner: Aligner | None = None, limits: Limits | None = None) -> FastAPI:
    """Return the ASGI app of ``facelm serve``, for a server of one's own.

    ``aligner`` answers, by default ``Aligner(max_pixels=MAX_PIXELS)``; it is run once here, so that the first request
    takes no longer than the others. ``app.state.pool`` is the :class:`facelm_sdk.serve.pool.Pool`. There is no
    authentication, and no page that loads anything from elsewhere. Raises what Aligner raises.
    """
    aligner = aligner or Aligner(max_pixels=MAX_PIXELS)
    _warm_up(aligner)
    pool = Pool(limits or Limits())
    spec = (aligner.pipeline or aligner.landmarker).spec
    detector = "" if aligner.detector is None else aligner.detector.spec.name
    metrics = Metrics(pool, {"version": __version__, "model": spec.name, "detector": detector})
    work = _Work(aligner, pool, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await pool.shut_down()

    app = FastAPI(
        title="facelm",
        summary="Facial landmarks of pictures.",
        version=__version__,
        docs_url=None,  # the page would load its scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.pool = pool
    add_handlers(app)
    add_schema(app)

    @app.post(
        "/v1/faces",
        summary="Find the faces of a picture",
        response_class=Response,
        responses={**PROBLEMS, 200: FACES},
        openapi_extra=PICTURE,
    )
    async def faces(
        request: Request,
        source: Annotated[str | None, Query(description="`source` of the answer; default: a form's file name.")] = None,
    ) -> Response:
        status, started = 500, time.perf_counter()
        try:
            with pool.place() as place:
                found = await work.answer(request, place, source)
            status = 200
            metrics.seconds.observe(time.perf_counter() - started)
            return Response(found, media_type="application/json")
        except Refused as refused:
            status = refused.status
            raise
        except ClientDisconnect:
            status = CLIENT_GONE
            return Response(status_code=status)
        except Exception as error:
            logger.exception("a picture could not be answered")
            raise Refused(500, "internal", "the server failed on this picture; its log says how") from error
        finally:
            metrics.requests.labels(str(status)).inc()

    @app.get("/healthz", summary="Whether the process lives")
    async def healthz() -> Status:
        return Status(status="ok")

    @app.get("/readyz", summary="Whether requests are taken", responses={503: {"model": Status}})
    async def readyz(response: Response) -> Status:
        response.status_code = 503 if pool.stopping else 200
        return Status(status="stopping" if pool.stopping else "ok")

    @app.get("/metrics", summary="Counts and times for Prometheus", response_class=Response, responses={200: TEXT})
    async def read_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return app


def _warm_up(aligner: Aligner) -> None:
    picture = np.zeros((320, 320, 3), np.uint8)
    aligner(picture)
    if aligner.pipeline is None:
        aligner(picture, kps=MEAN_KPS * 320)


class _Work:
    """What becomes of a request that has a place."""

    def __init__(self, aligner: Aligner, pool: Pool, metrics: Metrics) -> None:
        self.aligner, self.limits, self.metrics = aligner, pool.limits, metrics

    async def answer(self, request: Request, place: Place, source: str | None) -> bytes:
        """The JSON of a request's picture. Raises Refused, and ClientDisconnect where nobody waits for it any more."""
        check_type(request)
        seconds = self.limits.timeout
        ends = time.monotonic() + seconds
        try:
            body = await asyncio.wait_for(read_body(request, self.limits.max_bytes), seconds)
        except asyncio.TimeoutError:
            raise Refused(408, "timeout", f"the body was not sent within {seconds:g} seconds") from None
        found = asyncio.ensure_future(place.run(lambda: self._align(upload(request, body), source)))
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({found, gone}, timeout=ends - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
            if found.done():
                return found.result()
            if gone.done():
                raise ClientDisconnect
            raise Refused(503, "timeout", f"there was no answer within {seconds:g} seconds", RETRY_AFTER)
        finally:
            found.cancel()
            gone.cancel()

    def _align(self, given: Upload, source: str | None) -> bytes:
        with self.metrics.work.time():
            try:
                picture = Picture(given.data, max_pixels=self.aligner.max_pixels)
                faces = self.aligner(picture)
            except ImageError as error:
                raise Refused(422, "not_a_picture", str(error)) from error
            found = record(given.name if source is None else source, picture, faces, self.aligner)
            self.metrics.faces.inc(len(faces))
            return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


async def _disconnected(request: Request) -> None:
    """Wait until the client of a request, whose body was read, is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
