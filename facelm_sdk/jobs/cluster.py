"""The engine of many machines: Ray Data hands parts out to actors, each of which has one worker process."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from .._optional import load
from .inputs import Part
from .worker import Work, Worker

MOST_BLOCKS = 10_000
"""Blocks of Ray Data, which keeps a record of each: above, one has several parts."""


def run(
    work: Work, parts: Sequence[Part], workers: int | None, address: str | None
) -> Generator[tuple[int, int], None, None]:
    """Do parts on the cluster at ``address``; yield of each how many pictures it has, and how many of them failed.

    Without an address it is the cluster that the process is connected to, that of RAY_ADDRESS, or a local one, which
    ends with the iterator. ``workers`` is by default one a core of the cluster. A part whose actor or machine dies is
    given to another. Raises what a worker raises, and MissingDependencyError.
    """
    ray = load("ray", "ray")
    data = load("ray.data", "ray")
    ours = not ray.is_initialized()
    if ours:
        place = address or os.environ.get("RAY_ADDRESS") or "local"
        local = {"num_cpus": workers, "include_dashboard": False} if place == "local" else {}
        ray.init(address=place, log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        size = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        # Not data.range: it reads by a task, for which the actors leave no core.
        numbers = data.from_items(list(range(len(parts))), override_num_blocks=min(len(parts), MOST_BLOCKS))
        on_cuda = "CUDAExecutionProvider" in (work.aligner.pipeline or work.aligner.landmarker).session.providers
        done = numbers.map_batches(
            _Actor,
            fn_constructor_args=(pickle.dumps(work), tuple(parts)),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(size, len(parts))),
            num_cpus=1,
            num_gpus=1 if on_cuda else None,
        )
        for row in done.iter_rows():
            if row["problem"]:
                raise pickle.loads(row["problem"])
            yield int(row["done"]), int(row["failed"])
    finally:
        if ours:
            ray.shutdown()


class _Actor:
    """Does the parts that Ray Data gives it the numbers of."""

    def __init__(self, work: bytes, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._worker = Worker(work)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one part, and return how many pictures it was, how many failed, and what was raised, pickled."""
        steps: list[tuple[int, int]] = [(0, 0)]
        problem = b""
        try:
            self._worker.run(self._parts[int(batch["item"][0])], lambda *step: steps.append(step))
        except Exception as error:  # raised here, Ray would wrap it in its own, with its stack
            problem = pickle.dumps(error)
        done, failed = np.sum(steps, axis=0)
        return {"done": [int(done)], "failed": [int(failed)], "problem": [problem]}
