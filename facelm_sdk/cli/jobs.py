"""``facelm align --out``: a big job, its progress on a terminal or as a line now and then, and what it found."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from .. import jobs
from ..aligner import Aligner
from ..files import printable
from .options import counted, stderr

LINE_EVERY = 30.0
"""Seconds between the lines where there is no terminal."""


def run(
    sources: list[str],
    out: str,
    aligner: Aligner,
    *,
    workers: int | None,
    column: str | None,
    root: str | None,
    engine: jobs.Engine,
    address: str | None,
    quiet: bool,
) -> None:
    """Run a job to its end and tell of it. Exits with 1 where a picture failed."""
    started = time.monotonic()
    with _Told(quiet=quiet) as told:
        try:
            found = jobs.align(
                sources,
                out,
                aligner,
                workers=workers,
                column=column,
                root=root,
                engine=engine,
                address=address,
                progress=told,
            )
        except KeyboardInterrupt:
            if (last := told.last) is not None and last.total is not None:
                told.line(f"stopped at {last.done:,} of {last.total:,} pictures; the same command goes on from there")
            raise
    if not quiet:
        whole = told.last is not None and told.last.before == told.last.total
        spent = "whole already" if whole else f"{time.monotonic() - started:.1f} s"
        stderr.print(
            printable(
                f"{out}: {counted(found.pictures, 'picture')}, {counted(found.faces, 'face')}, "
                f"{found.without_face} without a face, {found.failed} failed; {spent}"
            ),
            markup=False,
        )
    if found.failed:
        raise typer.Exit(1)


class _Rate(ProgressColumn):
    """How many pictures a second are done, and how many failed."""

    def render(self, task: Task) -> Text:
        speed = "" if task.speed is None else f"{task.speed:.1f} pictures/s"
        failed = task.fields["failed"]
        return Text(f"{speed}, {failed} failed" if failed else speed)


class _Told:
    """Shows a job's progress: as a bar on a terminal, else as a line on stderr every LINE_EVERY seconds."""

    def __init__(self, *, quiet: bool) -> None:
        self.last: jobs.Progress | None = None
        self._quiet = quiet
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), _Rate())
        hidden = quiet or not stderr.is_terminal
        self._lines = hidden and not quiet
        self._bar = Progress(
            *columns,
            console=stderr,
            transient=True,
            disable=hidden,
            redirect_stdout=sys.stdout.isatty(),
            speed_estimate_period=120,
        )
        self._task = self._bar.add_task("listing", total=None, failed=0)
        self._since = self._next = 0.0

    def __enter__(self) -> _Told:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        """Print a line on stderr."""
        if not self._quiet:
            stderr.print(text, markup=False)

    def __call__(self, now: jobs.Progress) -> None:
        """Show how far the job is."""
        begins = now.total is not None and (self.last is None or self.last.total is None)
        self.last = now
        if self._lines:
            self._tell(now, begins=begins)
        elif now.total is None:
            self._bar.update(self._task, completed=now.done)
        elif begins:
            self._bar.reset(self._task, description="aligning", total=now.total, completed=now.done)
        else:
            self._bar.update(self._task, completed=now.done, failed=now.failed)

    def _tell(self, now: jobs.Progress, *, begins: bool) -> None:
        clock = time.monotonic()
        if begins:
            self._since, self._next = clock, clock + LINE_EVERY
            if now.before:
                self.line(f"{now.before:,} of {now.total:,} pictures were done by earlier runs")
        elif clock >= self._next:
            self._next = clock + LINE_EVERY
            if now.total is None:
                self.line(f"{now.done:,} pictures listed")
                return
            rate = (now.done - now.before) / (clock - self._since)
            left = timedelta(seconds=round((now.total - now.done) / rate)) if rate > 0 else "unknown time"
            failed = f", {now.failed:,} failed" if now.failed else ""
            self.line(f"{now.done:,} of {now.total:,} pictures, {rate:.1f} pictures/s, {left} left{failed}")
