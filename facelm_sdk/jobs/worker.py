"""Parts done in processes of their own, which are started again where a picture, or the system, ends them."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .. import table
from .._optional import load, load_cv2
from ..aligner import Aligner
from ..errors import FacelmError
from ..parallel import map_in_order
from .inputs import Part, Reader
from .storage import Place

logger = logging.getLogger(__name__)

AHEAD = 4
"""Pictures that are fetched side by side, before their turn, as object stores answer late."""
DEATHS = 2
"""Times that a worker's process dies on a picture before the picture is given up."""

Told = Callable[[int, int], None]
"""Is told how many more pictures are done, and how many more of them failed; fewer where a part is begun again."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker knows of a job: its model, where pictures are read and where parts are written."""

    aligner: Aligner
    reader: Reader
    folder: Place

    def do(self, part: Part, given_up: Mapping[int, str], told: Callable[[int, int], None]) -> None:
        """Align a part's pictures and write their rows, whole or not at all.

        ``given_up`` are pictures that are not tried again, with the reason. ``told`` is told the number of each picture
        before it is tried, and how many failed so far; at the end, the number after the last. Raises OutputError, and
        OSError or InputError where the list of pictures cannot be read.
        """
        found: list[table.Row] = []
        failed = 0
        for number, name, image in map_in_order(self._fetched, self.reader.read(part), AHEAD):
            told(number, failed)
            problem = FacelmError(given_up[number]) if number in given_up else image
            if isinstance(problem, Exception):
                of_picture = [table.error_row(self.aligner, name, table.error_text(problem), picture=number)]
            else:
                of_picture = table.rows(self.aligner, image, name, picture=number)
            failed += "error" in of_picture[0]
            found += of_picture
        with part_file(self.folder, part).writing() as file:
            load("pyarrow.parquet", "parquet").write_table(table.to_table(found), file, compression="zstd")
        told(part.first + part.count, failed)

    def _fetched(self, found: tuple[int, str, Any]) -> tuple[int, str, Any]:
        number, name, image = found
        if image is None:
            try:
                image = self.reader.fetch(name)
            except (FacelmError, OSError, MemoryError) as error:
                image = error
        return number, name, image


def part_file(folder: Place, part: Part) -> Place:
    """Return where the rows of a part are written."""
    return folder / f"{part.number:08d}.parquet"


class Worker:
    """A process that does parts, one after the other. It ends with the process that made it, however that ends.

    ``work`` is a pickled :class:`Work`, whose models are opened in the process alone.
    """

    def __init__(self, work: bytes) -> None:
        self._work = work
        self._deaths: Counter[int] = Counter()
        self._given_up: dict[int, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, part: Part, told: Told) -> None:
        """Do a part; a picture on which the process dies DEATHS times has that as its error.

        Raises what :meth:`Work.do` raises, and FacelmError where the process dies without a picture.
        """
        while not self._stopped:
            number, failed = part.first, 0
            try:
                for now_at, now_failed in self._messages(part):
                    told(now_at - number, now_failed - failed)
                    number, failed = now_at, now_failed
                return
            except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
                if self._stopped:
                    return
                told(part.first - number, -failed)
                self._bury(number, number == part.first + part.count, error)

    def stop(self) -> None:
        """End the process at once, from any thread: what runs in another then returns, its part undone."""
        self._stopped = True
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the process and close what leads to it."""
        if (process := self._process) is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with suppress(BrokenPipeError):
                    stream.close()
            self._process = None

    def _messages(self, part: Part) -> Iterator[tuple[int, int]]:
        """What the process tells of a part, up to its end."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        pickle.dump((part, self._given_up), process.stdin)
        process.stdin.flush()
        while (message := pickle.load(process.stdout)) is not None:
            if isinstance(message, Exception):
                raise message
            yield message

    def _start(self) -> subprocess.Popen[bytes]:
        # Not multiprocessing: it runs the caller's script anew, and a notebook or an actor has none.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process = process
        if self._stopped:
            process.kill()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(self._work)
            process.stdin.flush()
            message = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise FacelmError(f"a worker's process cannot be started: {self._end()}") from error
        if isinstance(message, Exception):
            raise message
        return process

    def _bury(self, number: int, at_end: bool, error: Exception) -> None:
        """Note that the process died on a picture. Raises FacelmError where it was none that it died on."""
        reason = self._end()
        self._deaths[number] += 1
        logger.warning("a worker's process ended (%s) at picture %d, and is started again", reason, number)
        if self._deaths[number] < DEATHS:
            return
        if at_end:
            raise FacelmError(f"a worker's process cannot write its part: {reason}") from error
        self._given_up[number] = f"the process that aligned it ended, {DEATHS} times: {reason}"

    def _end(self) -> str:
        """Close what is left of the process, and return how it ended."""
        assert self._process is not None
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            code = None
        self.close()
        if code is not None and code < 0:
            return signal.Signals(-code).name
        return "it did not answer" if code is None else f"exit code {code}"


def serve() -> None:
    """Be a Worker's process: do the parts that are asked for on stdin, and tell of them on what was stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is its parent's to handle
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # where libraries print

    def tell(message: Any) -> None:
        pickle.dump(message, answers)
        answers.flush()

    requests = sys.stdin.buffer
    try:
        try:
            work = pickle.load(requests)
            load_cv2().setNumThreads(1)  # the other cores are other workers'
            tell(None)
            while True:
                part, given_up = pickle.load(requests)
                work.do(part, given_up, lambda number, failed: tell((number, failed)))
                tell(None)
        except BrokenPipeError:
            raise
        except EOFError:
            return
        except Exception as error:
            tell(error)
    except BrokenPipeError:
        os._exit(1)  # nobody is left to be told, nor to clean up for
