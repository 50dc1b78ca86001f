"""How idle threads of a session wait for their next node: spinning where the cores are free, asleep where they are not.

A thread that sleeps takes longer to wake than many nodes of a small network run; one that spins takes the core from
whoever needs it. So threads spin, for a bounded time, until the system takes cores from this process; then a second
session of the model takes over, whose threads sleep.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

SPIN_US = 50
"""Longer than the serial nodes between two parallel ones; the end of a run costs each idle thread as much."""
LARGE_MODEL = 64 << 20
"""Bytes of a file above which it is not worth a second session."""

WINDOW = 0.05
"""Seconds of running models after which the cores are judged."""
LEAST_CORES = 1.4
"""Processor time a second of running. Two threads are measured to get 1.5 to 1.8 on free cores, and 0.6 to 1.3 where
others want them or the system keeps all threads on one."""
MOST_SWITCHES = 1000.0
"""Involuntary context switches a second of running: 100 to 600 on free cores. They tell what processor time cannot
where this process's other threads are at work, too."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 2.0
"""Seconds of running without spinning before it is tried again; twice as long after each trial that fails."""


class Cores:
    """Whether others want this process's cores, told by what it gets of them while threads spin."""

    def __init__(self) -> None:
        self.contended = False
        self._pause = 0.0
        self._start_window()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """The time of a run."""
        taken, used, start = switches(), time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            self.note(time.perf_counter() - start, time.process_time() - used, switches() - taken)

    def note(self, seconds: float, used: float, taken: int) -> None:
        """A run of ``seconds`` that had ``used`` seconds of processor time and lost a core ``taken`` times."""
        self._seconds += seconds
        self._used += used
        self._taken += taken
        if self.contended:
            if self._seconds >= self._pause:
                self.contended = False
                self._start_window()
        elif self._seconds >= WINDOW:
            few = self._used < LEAST_CORES * self._seconds
            self.contended = few or self._taken > MOST_SWITCHES * self._seconds
            self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE) if self.contended else 0.0
            self._start_window()

    def _start_window(self) -> None:
        self._seconds, self._used, self._taken = 0.0, 0.0, 0


cores = Cores()
"""Of all sessions of this process."""


def switches() -> int:
    """Involuntary context switches of this process so far; 0 where the system does not count them."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def allow(options: Any, *, bounded: bool) -> None:
    """Let idle threads of a session spin for SPIN_US, or not at all."""
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(bounded)))
    if bounded:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))


def can_be_bounded(ort: Any) -> bool:
    """Whether there are cores to share, this onnxruntime (from 1.26) can end spinning soon, and harm can be told."""
    version = tuple(int(part) for part in ort.__version__.split(".")[:2])
    return resource is not None and (os.cpu_count() or 1) > 1 and version >= (1, 26)
