"""How idle threads of a session wait for their next node: spinning where the cores are free, asleep where they are not.

A thread that sleeps takes longer to wake than many nodes of a small network run; one that spins takes the core from
whoever needs it. So threads spin, for a bounded time, until the system takes cores from this process; then a second
session of the model takes over, whose threads sleep.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SPIN_US = 50
"""Longer than the serial nodes between two parallel ones; the end of a run costs each idle thread as much."""
LARGE_MODEL = 64 << 20
"""Bytes of a file above which it is not worth a second session."""

WINDOW = 0.05
"""Seconds of running models in which the cores are judged."""
MOST_SWITCHES = 600.0
"""Involuntary context switches a second of running. With spinning, 20 to 400 are measured on free cores, 850 and more
where others want them or the system keeps all threads on one."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 2.0
"""Seconds of running without spinning before it is tried again; twice as long after each trial that fails."""


class Cores:
    """Whether others want this process's cores, told by how often the system takes one away while threads spin."""

    def __init__(self) -> None:
        self.contended = False
        self._pause = 0.0
        self._switches = 0
        self._seconds = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """The time of a run."""
        before, start = switches(), time.perf_counter()
        try:
            yield
        finally:
            self.note(switches() - before, time.perf_counter() - start)

    def note(self, taken: int, seconds: float) -> None:
        """A run of ``seconds`` in which cores were ``taken`` away so many times."""
        self._switches += taken
        self._seconds += seconds
        if self.contended:
            if self._seconds >= self._pause:
                self._judge(contended=False)
        elif self._switches > MOST_SWITCHES * WINDOW:
            self._judge(contended=True)
            self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
        elif self._seconds >= WINDOW:
            self._judge(contended=False)
            self._pause = 0.0

    def _judge(self, *, contended: bool) -> None:
        self.contended = contended
        self._switches, self._seconds = 0, 0.0


cores = Cores()
"""Of all sessions of this process."""


try:
    import resource
except ImportError:  # Windows

    def switches() -> int:
        """Involuntary context switches of this process so far."""
        return 0

    _COUNTED = False
else:

    def switches() -> int:
        """Involuntary context switches of this process so far."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw

    _COUNTED = True


def allow(options: Any, *, bounded: bool) -> None:
    """Let idle threads of a session spin for SPIN_US, or not at all."""
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(bounded)))
    if bounded:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))


def can_be_bounded(ort: Any) -> bool:
    """Whether this onnxruntime can end spinning soon (from 1.26), and the system tells when it does harm."""
    return _COUNTED and tuple(int(part) for part in ort.__version__.split(".")[:2]) >= (1, 26)
