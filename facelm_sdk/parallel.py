"""Work on many pictures side by side: threads, since onnxruntime and OpenCV let others run meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from . import machine
from ._checks import is_whole
from .errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8
"""Workers unless told otherwise, where there are as many cores: each holds a picture in memory."""
AHEAD = 2
"""Items taken for each worker, so that none waits while the results of a slow one before it are waited for."""


def checked_workers(workers: Any) -> int:
    """Return the number of workers, by default as many as there are cores, at most MOST_WORKERS. Raises InputError."""
    if workers is None:
        return min(machine.usable_cores(), MOST_WORKERS)
    if not is_whole(workers, 1, 256):
        raise InputError(f"workers is a whole number from 1 to 256, or None, not {workers!r}")
    return int(workers)


def map_in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Generator[Result, None, None]:
    """Yield what ``work`` makes of each item, in their order, ``workers`` of them at a time in threads.

    What is raised, by ``work`` or by ``items``, is raised where it stands in the order, once the work that runs has
    ended; no other is begun. One worker is the calling thread itself.
    """
    if workers == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="facelm") as pool:
        running: deque[Future[Result]] = deque()
        try:
            for future in _submitted(pool, work, items):
                running.append(future)
                if len(running) >= AHEAD * workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _submitted(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Future[Result]]:
    try:
        for item in items:
            yield pool.submit(work, item)
    except Exception as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        yield failed
