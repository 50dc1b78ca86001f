"""Profile: where the milliseconds of an Aligner's calls went, stage by stage."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from statistics import fmean, median
from time import perf_counter

READ = "read picture"
RESIZE = "detect: resize"
DETECTOR = "detect: network"
MERGE = "detect: merge"
WARP = "crops: warp"
BATCH = "landmarks: batch"
LANDMARKER = "landmarks: network"
PIPELINE = "pipeline: one file"
MAP_BACK = "map back"
CONFIRM = "tracks: confirm"
OTHER = "other"

ORDER = (READ, RESIZE, DETECTOR, MERGE, WARP, BATCH, LANDMARKER, PIPELINE, MAP_BACK, CONFIRM, OTHER)
KEPT_CALLS = 1000


@dataclass(frozen=True, slots=True)
class StageTime:
    """One stage over the calls kept: ``runs`` in all of them, then milliseconds a call, and its part of the total."""

    name: str
    runs: int
    mean: float
    median: float
    share: float


@dataclass(slots=True)
class _Open:
    """A stage that runs, and when the time began that is not booked yet."""

    name: str
    since: float
    has_inner: bool = False


@dataclass(slots=True)
class _Call:
    """A call that runs: its stages so far, in milliseconds and runs, and those that are open."""

    profile: Profile
    times: dict[str, float] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    open: list[_Open] = field(default_factory=list)

    def book(self, name: str, seconds: float) -> None:
        self.times[name] = self.times.get(name, 0.0) + seconds * 1e3

    @contextmanager
    def stage(self, name: str, after: str | None) -> Iterator[None]:
        now = perf_counter()
        if self.open:
            outer = self.open[-1]
            outer.has_inner = True
            self.book(outer.name, now - outer.since)
        self.open.append(_Open(name, now))
        try:
            yield
        finally:
            now = perf_counter()
            stage = self.open.pop()
            last = after if after and stage.has_inner else name
            self.book(last, now - stage.since)
            for booked in {name, last}:
                self.runs[booked] = self.runs.get(booked, 0) + 1
            if self.open:
                self.open[-1].since = now


class _Thread(threading.local):
    call: _Call | None = None


_thread = _Thread()
_nothing: AbstractContextManager[None] = nullcontext()


def call(profile: Profile | None) -> AbstractContextManager[None]:
    """Return what times the code inside as one call of ``profile``; None measures nothing."""
    return _nothing if profile is None else profile.call()


def stage(name: str, after: str | None = None) -> AbstractContextManager[None]:
    """Return what books the time inside as ``name`` in the call that this thread is in; outside of one, nothing.

    Stages within it are not counted twice; from the last of those on, time is booked as ``after``.
    """
    running = _thread.call
    return _nothing if running is None else running.stage(name, after)


class Profile:
    """Times of the stages of each call, the last 1000 calls kept. A stage inside another is not counted twice.

    Calls of several threads at once are calls of their own. ``print(aligner.profile)`` shows the table.
    """

    def __init__(self) -> None:
        self._calls: deque[tuple[float, dict[str, float], dict[str, int]]] = deque(maxlen=KEPT_CALLS)

    def reset(self) -> None:
        """Forget every call."""
        self._calls.clear()

    def __len__(self) -> int:
        """The number of calls kept."""
        return len(self._calls)

    @property
    def last(self) -> dict[str, float]:
        """Milliseconds of each stage in the last call, and their ``total``; {} before the first."""
        calls = list(self._calls.copy())  # other threads may add to it and empty it
        if not calls:
            return {}
        total, times, _ = calls[-1]
        return {**_sorted(times), "total": total}

    @property
    def total(self) -> StageTime:
        """The whole call."""
        totals = [total for total, _, _ in self._calls.copy()]
        return StageTime("total", len(totals), fmean(totals or [0.0]), median(totals or [0.0]), 1.0)

    def stages(self) -> list[StageTime]:
        """Every stage that ran, in the order of the way a picture takes."""
        calls = list(self._calls.copy())
        mean = fmean(total for total, _, _ in calls) if calls else 1.0
        found = []
        for name in _sorted({name: 0.0 for _, times, _ in calls for name in times}):
            values = [times.get(name, 0.0) for _, times, _ in calls]
            runs = sum(counts.get(name, 0) for _, _, counts in calls)
            found.append(StageTime(name, runs, fmean(values), median(values), fmean(values) / (mean or 1.0)))
        return found

    def table(self) -> str:
        """The stages as lines of text: runs, mean and median milliseconds a call, percent of the mean call."""
        calls = f"{len(self)} call{'' if len(self) == 1 else 's'}"
        lines = [f"{calls:<20}{'runs':>7}{'mean ms':>10}{'median':>10}{'share':>8}"]
        lines += [
            f"{stage.name:<20}{stage.runs:>7}{stage.mean:>10.3f}{stage.median:>10.3f}{stage.share:>8.1%}"
            for stage in [*self.stages(), self.total]
        ]
        return "\n".join(lines)

    __str__ = table

    @contextmanager
    def call(self) -> Iterator[None]:
        """Time what is inside as one call; a call within a call is part of it. One that raises is not kept."""
        outer = _thread.call
        if outer is not None and outer.profile is self:
            yield
            return
        own = _thread.call = _Call(self)
        started = perf_counter()
        try:
            yield
            total = (perf_counter() - started) * 1e3
            own.times[OTHER] = max(0.0, total - sum(own.times.values()))
            self._calls.append((total, own.times, own.runs))
        finally:
            _thread.call = outer


def _sorted(times: Mapping[str, float]) -> dict[str, float]:
    """The stages in the order of the way; others stand before the rest."""
    place = {name: index for index, name in enumerate(ORDER)}
    return dict(sorted(times.items(), key=lambda item: place.get(item[0], len(ORDER) - 2)))
