"""Worker threads behind a bounded number of places."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from .limits import Limits
from .problems import RETRY_AFTER, Refused

Result = TypeVar("Result")


class Pool:
    """Threads that align pictures side by side, and the places of the requests they work for.

    A request takes a place before its body is read, so that what is beyond the limit costs no memory. All but the work
    itself happens in one event loop. Crops of several requests are not put into one run of the network: on a CPU that
    saves less than a twentieth of a picture's time, and each would wait for the others' detection.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.taken = 0
        self.running = 0
        self.stopping = False
        self._free = asyncio.Semaphore(limits.workers)
        self._threads = ThreadPoolExecutor(limits.workers, thread_name_prefix="facelm")

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Hold a place for a request. Raises Refused (503) where all are taken, or the server is stopping."""
        if self.stopping:
            raise Refused(503, "stopping", "the server is stopping; ask another, or again later", RETRY_AFTER)
        if self.taken >= self.limits.places:
            raise Refused(503, "overloaded", f"all {self.limits.places} places are taken; ask again later", RETRY_AFTER)
        self.taken += 1
        place = Place(self)
        try:
            yield place
        finally:
            if not place.runs:
                self.taken -= 1

    async def stop(self) -> None:
        """Refuse what is new, and wait until what was taken is done."""
        self.stopping = True
        while self.taken:
            await asyncio.sleep(0.02)

    async def shut_down(self) -> None:
        """End the threads."""
        await asyncio.to_thread(self._threads.shutdown)


class Place:
    """A request's place in a :class:`Pool`; ``runs`` once a thread is at its work.

    A thread cannot be stopped: where nobody waits for it any more, the place is taken until it ends.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.runs = False

    async def run(self, work: Callable[[], Result]) -> Result:
        """What ``work`` gives in a thread, once one is free; where this is cancelled before, it is never begun."""
        await self._pool._free.acquire()
        loop = asyncio.get_running_loop()
        future = self._pool._threads.submit(work)
        self.runs = True
        self._pool.running += 1

        def ended(_: Future[Result]) -> None:
            with suppress(RuntimeError):  # the loop was closed, by a second signal
                loop.call_soon_threadsafe(self._ended)

        future.add_done_callback(ended)
        return await asyncio.wrap_future(future)

    def _ended(self) -> None:
        self._pool.running -= 1
        self._pool.taken -= 1
        self._pool._free.release()
