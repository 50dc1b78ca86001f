"""``facelm serve``: faces over HTTP."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from .. import zoo
from .._optional import load
from ..aligner import Aligner
from ..errors import InputError
from ..parallel import checked_workers
from ..runtimes.open import Variant
from .options import (
    DetectorModel,
    DetSizeText,
    DetThresh,
    Device,
    Flip,
    LandmarkModel,
    MaxFaces,
    MinPresence,
    ProviderText,
    Strict,
    Threads,
    VariantText,
    Workers,
    counted,
    det_size_of,
    providers_of,
    stderr,
)

LOCAL = ("127.0.0.1", "::1", "localhost")


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is all of this machine's. There is no authentication.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 is any that is free.")] = 8000,
    model: LandmarkModel = zoo.LANDMARKS,
    detector: DetectorModel = zoo.DETECTOR,
    flip: Flip = None,
    device: Device = "cpu",
    provider: ProviderText = None,
    strict: Strict = False,
    variant: VariantText = "auto",
    det_size: DetSizeText = "auto",
    det_thresh: DetThresh = None,
    max_faces: MaxFaces = None,
    min_presence: MinPresence = None,
    threads: Threads = None,
    workers: Workers = None,
    queue: Annotated[int, typer.Option(help="Requests that wait or are being sent; beyond it the answer is 503.")] = 32,
    max_bytes: Annotated[int, typer.Option(help="Refuse bodies of more.")] = 20 << 20,
    max_pixels: Annotated[int, typer.Option(envvar="FACELM_MAX_PIXELS", help="Refuse pictures of more.")] = 64_000_000,
    timeout: Annotated[float, typer.Option(help="Seconds for a request, its sending and waiting counted.")] = 30.0,
    drain: Annotated[
        float, typer.Option(help="Seconds between SIGTERM, when /readyz turns to 503, and the end, at least.")
    ] = 0.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No line at the start and the end.")] = False,
) -> None:
    """Answer pictures with their faces over HTTP: POST /v1/faces."""
    load("fastapi", "serve")
    from ..serve import Limits, create_app, run

    if not 0 <= port <= 65535:
        raise InputError(f"--port is a number from 0 to 65535, not {port}")
    if not 0 <= drain <= 3600:
        raise InputError(f"--drain is a number of seconds from 0 to 3600, not {drain:g}")
    limits = Limits(workers=checked_workers(workers), queue=queue, max_bytes=max_bytes, timeout=timeout)
    aligner = Aligner(
        model,
        detector,
        flip=flip,
        variant=cast("Variant", variant),
        device=device,
        providers=providers_of(provider, device),
        strict=strict,
        det_size=det_size_of(det_size),
        det_thresh=det_thresh,
        threads=threads,
        max_faces=max_faces,
        min_presence=min_presence,
        max_pixels=max_pixels,
        licence_notice=not quiet,
    )

    def started(address: str) -> None:
        if quiet:
            return
        side_by_side = counted(limits.workers, "worker")
        reach = "this machine alone" if host in LOCAL else "whoever reaches it: there is no authentication"
        stderr.print(f"facelm serve: POST {address}/v1/faces; {side_by_side}; open to {reach}", markup=False)

    run(create_app(aligner, limits), host, port, drain=drain, started=started)
    if not quiet:
        stderr.print("facelm serve: stopped", markup=False)
