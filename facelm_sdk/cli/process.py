"""What a command owes the shell that runs it: exit codes, the end by a signal, and a stdout that is closed or full."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from types import FrameType
from typing import NoReturn

from ..errors import FacelmError
from .options import printable, stderr


def run(app: Callable[[], object]) -> NoReturn:
    """Run a command line to its end. An error of this project's, or a failing stdout, is one red line and exit code 2.

    SIGTERM and SIGHUP interrupt it as Ctrl-C (exit code 130) does, so that what is open is closed and what was found is
    kept; the exit code is then 128 plus the signal's number.
    """
    _open_stdout()
    code: str | int | None = 0
    with _interrupted_by_signals() as received:
        try:
            app()
        except SystemExit as stop:
            code = stop.code
        except KeyboardInterrupt:
            code = 130
        except FacelmError as error:
            code = _failed(str(error))
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            code = _failed(_stdout_problem() or f"{place}{error.strerror or error}")
        problem = _stdout_problem()
        if problem is not None and not code:
            code = _failed(problem)
    sys.exit(128 + received[0] if received else code)


def _failed(text: str) -> int:
    with suppress(OSError):  # stderr may be full too
        stderr.print(f"error: {printable(text)}", style="red", markup=False)
    return 2


@contextmanager
def _interrupted_by_signals() -> Iterator[list[int]]:
    """Turn the first SIGTERM or SIGHUP into KeyboardInterrupt; its number is then in the list."""
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not received:
            received.append(number)
            raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = threading.current_thread() is threading.main_thread()
    before = {
        number: signal.signal(number, interrupt)
        for number in numbers
        if ours and signal.getsignal(number) == signal.SIG_DFL  # nohup ignores SIGHUP
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open_stdout() -> None:
    """Let a closed stdout fail where something is written to it, and a narrow encoding escape what it has not."""
    if sys.stdout is None:  # the next file that is opened would become it
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _stdout_problem() -> str | None:
    """Return why what was printed cannot be written, which is then given up, or None where it is."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):  # else Python tries again, and tells of it, as it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return f"stdout cannot be written: {error.strerror or error}"
    return None
