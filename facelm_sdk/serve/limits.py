"""What a server takes at most."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._checks import is_number, is_whole
from ..errors import InputError
from ..parallel import checked_workers

MAX_PIXELS = 64_000_000
"""Pixels of a picture unless told otherwise: more than phones take, and 200 MB a worker where all are decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server takes at most; it refuses what is more.

    ``workers`` pictures are aligned side by side (default: as many as cores, at most 8), and ``queue`` more requests
    wait or are being sent. A request's body has at most ``max_bytes``, and its answer ``timeout`` seconds from the end
    of its headers on. So of requests no more than ``places * max_bytes`` are held, whatever arrives. Raises InputError.
    """

    workers: int = field(default_factory=lambda: checked_workers(None))
    queue: int = 32
    max_bytes: int = 20 << 20
    timeout: float = 30.0

    def __post_init__(self) -> None:
        checked_workers(self.workers)
        if not is_whole(self.queue, 0, 65536):
            raise InputError(f"queue is a whole number from 0 to 65536, not {self.queue!r}")
        if not is_whole(self.max_bytes, 1, 1 << 30):
            raise InputError(f"max_bytes is a whole number from 1 to {1 << 30}, not {self.max_bytes!r}")
        if not is_number(self.timeout, 0.001, 3600):
            raise InputError(f"timeout is a number of seconds from 0.001 to 3600, not {self.timeout!r}")

    @property
    def places(self) -> int:
        """Requests held at a time: those that run, and those that wait or are being sent."""
        return self.workers + self.queue
