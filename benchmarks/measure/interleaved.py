"""Variants of a comparison measured in turns, each as a benchmark of its own in pytest-benchmark's results.

pytest-benchmark times one test after the other, so that a machine that slows down between two tests slows one variant
only. Here the first test of a comparison measures all variants that were selected, in turns, and each test hands its
own times to pytest-benchmark: its timer tells them again.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pytest

from facelm_sdk.bench import Runs, in_turns, tails, times

from .machine import CLOCK, peak

SECONDS = float(os.environ.get("FACELM_BENCH_SECONDS", "0.5"))
"""What one variant of a comparison may take; each has at least three turns."""


class Replay:
    """A timer for pytest-benchmark: the clock, or what was recorded, as the start and end of each round."""

    def __init__(self) -> None:
        self._marks: Iterator[float] = iter(())

    def __repr__(self) -> str:
        return "time.perf_counter, in turns"

    def tell(self, recorded: Sequence[float]) -> None:
        """The next rounds last so long, in milliseconds."""
        self._marks = chain.from_iterable((0.0, one / 1000) for one in recorded)

    def __call__(self) -> float:
        mark = next(self._marks, None)
        return time.perf_counter() if mark is None else mark


REPLAY = Replay()


@dataclass(frozen=True)
class Variant:
    """One variant: ``run`` is one run, or ``runs`` gives the milliseconds of many where they are not timed from here.

    ``info`` goes into the results; ``multiply_adds`` are a run's, in billions, 0 where they are not known.
    """

    run: Callable[[], object] | None = None
    runs: Runs | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    multiply_adds: float = 0.0

    def timed(self) -> Runs:
        if self.runs is not None:
            return self.runs
        assert self.run is not None
        return functools.partial(times, self.run, clock=CLOCK)


@dataclass(frozen=True)
class Measured:
    """A variant's milliseconds and what is to be written beside them."""

    ms: list[float]
    info: dict[str, Any]


Outcome = Measured | BaseException
Key = tuple[Any, ...]


class Interleaved:
    """The fixture ``interleaved``; ``outcomes`` are shared by all tests of a run."""

    def __init__(self, request: pytest.FixtureRequest, benchmark: Any, outcomes: dict[Key, dict[Key, Outcome]]) -> None:
        self._request, self._benchmark, self._outcomes = request, benchmark, outcomes

    def __call__(
        self, axes: Sequence[str], make: Callable[..., Variant], *, seconds: float = SECONDS, rounds: int = 3
    ) -> None:
        """Measure the variants that differ in the parameters ``axes``, and record the one of this test.

        ``make`` opens a variant for values of the axes; it may skip, with the reason.
        """
        own, rest = self._split(self._request.node, axes)
        if self._benchmark.disabled:
            make(*own).timed()(1)
            return
        key = (self._request.node.function.__qualname__, str(self._request.node.path), rest)
        if key not in self._outcomes:
            variants = [split[0] for item in self._request.session.items if (split := self._alike(item, axes, rest))]
            self._outcomes[key] = measured(variants, make, seconds=seconds, rounds=rounds)
        outcome = self._outcomes[key][own]
        if isinstance(outcome, BaseException):
            raise outcome
        name = self._request.node.originalname.removeprefix("test_")
        self._benchmark.group = " ".join([name, *(f"{key}={value}" for key, value in rest)])
        self._benchmark.extra_info |= {"axes": list(axes), **outcome.info}
        REPLAY.tell(outcome.ms)
        self._benchmark.pedantic(lambda: None, rounds=len(outcome.ms))

    def _alike(self, item: Any, axes: Sequence[str], rest: Key) -> tuple[Key, Key] | None:
        """The axes' values and the others of a selected test that takes part in the same comparison."""
        if getattr(item, "function", None) is not self._request.node.function:
            return None
        split = self._split(item, axes)
        return split if split[1] == rest else None

    @staticmethod
    def _split(item: Any, axes: Sequence[str]) -> tuple[Key, Key]:
        params = item.callspec.params
        rest = tuple(sorted((key, value) for key, value in params.items() if key not in axes))
        return tuple(params[axis] for axis in axes), rest


def measured(
    keys: Sequence[Key], make: Callable[..., Variant], *, seconds: float = SECONDS, rounds: int = 3
) -> dict[Key, Outcome]:
    """Open the variants and measure those that could be opened, in turns."""
    outcomes: dict[Key, Outcome] = {}
    variants: dict[Key, Variant] = {}
    for key in keys:
        try:
            variants[key] = make(*key)
        except (Exception, pytest.skip.Exception) as error:
            outcomes[key] = error
    if not variants:
        return outcomes
    counted = any(variant.multiply_adds for variant in variants.values())
    before = peak() if counted else 0.0
    found = in_turns(
        *(variant.timed() for variant in variants.values()), seconds=seconds * len(variants), rounds=rounds
    )
    rate = (before + peak()) / 2 if counted else 0.0
    for (key, variant), ms in zip(variants.items(), found, strict=True):
        info = {**variant.info, **{name: value / 1000 for name, value in tails(ms).items()}}
        if variant.multiply_adds:
            achieved = variant.multiply_adds / float(np.median(ms)) * 1000
            info |= {
                "multiply_adds": round(variant.multiply_adds, 4),
                "multiply_adds_per_second": round(achieved, 2),
                "peak_multiply_adds_per_second": round(rate, 2),
                "share_of_peak": round(achieved / rate, 3),
            }
        outcomes[key] = Measured(ms, info)
    return outcomes
