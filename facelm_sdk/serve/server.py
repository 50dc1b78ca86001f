"""``facelm serve``: the app on uvicorn, from the first request to a stop without a lost one."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from .pool import Pool

BACKLOG = 512
"""Connections that wait to be taken by the process."""


def run(app: FastAPI, host: str, port: int, *, drain: float = 0.0, started: Callable[[str], None] = print) -> None:
    """Serve ``app``, of :func:`create_app`, until SIGTERM or SIGINT; ``started`` is told the address.

    Then /readyz and new pictures are answered with 503, for ``drain`` seconds at least, so that a load balancer sees
    it; what was taken is done, and the process ends. A second signal ends it at once. Port 0 is any that is free.
    Raises OSError where the address cannot be had.
    """
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a client's damaged form is its answer's matter
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, ws="none", lifespan="on")
    name = f"[{host}]" if ":" in host else host
    server = _Server(config, app.state.pool, drain, lambda: started(f"http://{name}:{listener.getsockname()[1]}"))
    with listener:
        server.run([listener])


class _Server(uvicorn.Server):
    """Uvicorn that refuses first and stops later."""

    def __init__(self, config: uvicorn.Config, pool: Pool, drain: float, tell: Callable[[], None]) -> None:
        super().__init__(config)
        self._pool, self._drain, self._tell = pool, drain, tell
        self._stopping: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell of it."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._tell()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop at the first signal; at the second, stop."""
        if self._pool.stopping or not self.started:
            self.should_exit = self.force_exit = True
            return
        self._pool.stopping = True
        self._loop.call_soon_threadsafe(self._stop_later)

    def _stop_later(self) -> None:
        self._stopping = self._loop.create_task(self._stop())

    async def _stop(self) -> None:
        await asyncio.gather(self._pool.stop(), asyncio.sleep(self._drain))
        self.should_exit = True
