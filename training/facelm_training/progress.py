"""What is seen of a stage of training: a bar on a terminal, a line of the log now and then where there is none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

LINE_EVERY = 100
"""Steps between two lines of the log."""


def words(values: Mapping[str, float]) -> str:
    """Return named numbers in a line."""
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items())


class StageProgress:
    """Shows steps, losses and scores while its context is entered. Writes no control characters to files or pipes."""

    def __init__(self, description: str, total: int, done: int, console: Console | None = None) -> None:
        console = console or Console()
        self.description, self.total, self.first = description, total, done + 1
        # Rich takes FORCE_COLOR for a terminal, where output may go to a file all the same.
        self.on_terminal = console.is_terminal and console.file.isatty()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
        )
        self.bar = Progress(*columns, console=console, refresh_per_second=1, disable=not self.on_terminal)
        self.task = self.bar.add_task(description, total=total, completed=done, state="")

    def __enter__(self) -> StageProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def step(self, done: int, minutes: float, losses: Mapping[str, float]) -> None:
        """Show that ``done`` steps are done: a line for the first of this run, every LINE_EVERY and the last."""
        if self.on_terminal:
            self.bar.update(self.task, completed=done, state=words(losses))
        elif done in (self.first, self.total) or done % LINE_EVERY == 0:
            log.info("%s %d/%d, %.1f minutes: %s", self.description, done, self.total, minutes, words(losses))

    def scores(self, done: int, scores: Mapping[str, float]) -> None:
        """Show scores on held-out data."""
        line = f"{self.description} {done}/{self.total}, held out: {words(scores)}"
        if self.on_terminal:
            self.bar.console.print(line, soft_wrap=True, markup=False, highlight=False)
        else:
            log.info("%s", line)
