"""The engine of one machine: worker processes that take part after part."""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Generator, Sequence

from .inputs import Part
from .worker import Work, Worker


def run(work: Work, parts: Sequence[Part], workers: int) -> Generator[tuple[int, int], None, None]:
    """Do parts with that many processes; yield how many more pictures are done, and how many more of them failed.

    Whatever a worker raises is raised. All processes are ended when the iterator is.
    """
    waiting = iter(parts)
    lock = threading.Lock()
    told: queue.SimpleQueue[tuple[int, int] | BaseException | None] = queue.SimpleQueue()
    pickled = pickle.dumps(work)
    crew = [Worker(pickled) for _ in range(min(workers, len(parts)))]
    stopping = threading.Event()

    def loop(worker: Worker) -> None:
        try:
            while not stopping.is_set():
                with lock:
                    part = next(waiting, None)
                if part is None:
                    break
                worker.run(part, lambda done, failed: told.put((done, failed)))
        except BaseException as error:
            told.put(error)
        finally:
            worker.close()
            told.put(None)

    threads = [threading.Thread(target=loop, args=[worker], name="facelm-job", daemon=True) for worker in crew]
    for thread in threads:
        thread.start()
    running = len(threads)
    try:
        while running:
            message = told.get()
            if isinstance(message, BaseException):
                raise message
            if message is None:
                running -= 1
            else:
                yield message
    finally:
        stopping.set()
        for worker in crew:
            worker.stop()
        for thread in threads:
            thread.join()
