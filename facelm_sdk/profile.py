"""Profile: where the milliseconds of an Aligner's calls went, stage by stage."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from statistics import fmean, median
from time import perf_counter
from typing import Any

from numpy.typing import NDArray

from .session import Session
from .spec import ModelSpec

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


class Profile:
    """Times of the stages of each call, the last 1000 calls kept. A stage inside another is not counted twice.

    For one thread at a time. ``print(aligner.profile)`` shows the table.
    """

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._calls: deque[tuple[float, dict[str, float], dict[str, int]]] = deque(maxlen=KEPT_CALLS)
        self._times: dict[str, float] = {}
        self._runs: dict[str, int] = {}
        self._inside = False

    def reset(self) -> None:
        """Forget every call."""
        self._calls.clear()

    def __len__(self) -> int:
        """The number of calls kept."""
        return len(self._calls)

    @property
    def last(self) -> dict[str, float]:
        """Milliseconds of each stage in the last call, and their ``total``; {} before the first."""
        if not self._calls:
            return {}
        total, times, _ = self._calls[-1]
        return {**_sorted(times), "total": total}

    @property
    def total(self) -> StageTime:
        """The whole call."""
        totals = [total for total, _, _ in self._calls] or [0.0]
        return StageTime("total", len(self._calls), fmean(totals), median(totals), 1.0)

    def stages(self) -> list[StageTime]:
        """Every stage that ran, in the order of the way a picture takes."""
        mean = self.total.mean or 1.0
        found = []
        for name in _sorted({name: 0.0 for _, times, _ in self._calls for name in times}):
            values = [times.get(name, 0.0) for _, times, _ in self._calls]
            runs = sum(counts.get(name, 0) for _, _, counts in self._calls)
            found.append(StageTime(name, runs, fmean(values), median(values), fmean(values) / mean))
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
        if self._inside:
            yield
            return
        self._inside, self._times, self._runs = True, {}, {}
        started = perf_counter()
        try:
            yield
            total = (perf_counter() - started) * 1e3
            self._times[OTHER] = max(0.0, total - sum(self._times.values()))
            self._calls.append((total, self._times, self._runs))
        finally:
            self._inside = False
            self._open.clear()

    @contextmanager
    def stage(self, name: str, after: str | None = None) -> Iterator[None]:
        """Book the time inside, less that of stages within it, as ``name``; from the last of those on as ``after``."""
        if not self._inside:
            yield
            return
        now = perf_counter()
        if self._open:
            outer = self._open[-1]
            outer.has_inner = True
            self._book(outer.name, now - outer.since)
        self._open.append(_Open(name, now))
        try:
            yield
        finally:
            now = perf_counter()
            stage = self._open.pop()
            last = after if after and stage.has_inner else name
            self._book(last, now - stage.since)
            for booked in {name, last}:
                self._runs[booked] = self._runs.get(booked, 0) + 1
            if self._open:
                self._open[-1].since = now

    def _book(self, name: str, seconds: float) -> None:
        self._times[name] = self._times.get(name, 0.0) + seconds * 1e3


class NoProfile:
    """What stands in for a Profile where none was asked for: nothing is measured."""

    _nothing: AbstractContextManager[None] = nullcontext()

    def call(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return self._nothing

    def stage(self, name: str, after: str | None = None) -> AbstractContextManager[None]:
        """Do nothing."""
        return self._nothing


class TimedSession:
    """A session whose runs are a stage of a profile."""

    def __init__(self, session: Session, profile: Profile, stage: str) -> None:
        self._session = session
        self._profile = profile
        self._stage = stage

    @property
    def spec(self) -> ModelSpec:
        """The model's contract."""
        return self._session.spec

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, first choice first."""
        return self._session.providers

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, in the contract's order, for inputs by name."""
        with self._profile.stage(self._stage):
            return self._session.run(feeds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def _sorted(times: Mapping[str, float]) -> dict[str, float]:
    """The stages in the order of the way; others stand before the rest."""
    place = {name: index for index, name in enumerate(ORDER)}
    return dict(sorted(times.items(), key=lambda item: place.get(item[0], len(ORDER) - 2)))
