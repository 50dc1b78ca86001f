"""The process that inputs are tried in, and its parent's end of it: a crash or a hang ends the process and is told.

``python -m tests.fuzz.worker MODULE PROGRESS LOG`` reads lines ``TARGET START COUNT SECONDS`` and answers each with a
line of JSON; MODULE has the TARGETS. PROGRESS is a file that holds, at every moment, which input is being tried and how
the block has gone so far.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[2]
MEMORY = 1 << 30
"""Bytes that an input may take at once, and half of which a block may leave taken."""
ROOM = 4 << 30
"""Bytes of address space beyond which an allocation fails."""
PACKAGES = ("facelm_sdk", "facelm_models", "facelm_export", "facelm_training")
PROGRESS = struct.Struct("<qqqq")


@dataclass(slots=True)
class Block:
    """Consecutive seeds of a target: how many were tried, taken and refused, and the findings."""

    done: int = 0
    taken: int = 0
    refused: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)


def attempt(target: Any, seed: int) -> tuple[str, dict[str, Any] | None]:
    """Try one input in this process. Return ``taken``, ``refused`` or ``found``, and the finding."""
    from .targets import Finding, refusals

    given = target.input(seed)
    with tempfile.TemporaryDirectory(prefix="facelm-fuzz-") as place:
        folder = Path(place).resolve()
        write(given, folder)
        outcome, finding = "taken", None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", RuntimeWarning)  # numpy's, of overflows and the like
                target.run(folder, *given.arguments)
        except refusals():
            outcome = "refused"
        except Finding as error:
            finding = _finding(seed, f"{target.name}: {error}", traceback.format_exc())
        except Exception as error:
            finding = _finding(seed, _signature(error), traceback.format_exc())
        except SystemExit as error:
            finding = _finding(seed, f"SystemExit {error.code}", traceback.format_exc())
        if finding is None and (wrong := _disorder(given, folder, writes=target.writes)):
            finding = _finding(seed, wrong, f"arguments {given.arguments!r}")
        for path in folder.rglob("*"):  # a folder without permissions cannot be taken away
            with contextlib.suppress(OSError):
                path.chmod(0o700)
    return (outcome, None) if finding is None else ("found", finding)


def write(given: Any, folder: Path) -> None:
    """Write the files of an input."""
    for name, data in given.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _finding(seed: int, signature: str, text: str) -> dict[str, Any]:
    return {"seed": seed, "signature": signature, "text": text[-4000:]}


def _signature(error: Exception) -> str:
    """Return an exception's kind, and the last place in the packages that it came through."""
    places = [
        f"{Path(frame.filename).relative_to(ROOT).as_posix()}, {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if any(part in PACKAGES for part in Path(frame.filename).parts) and Path(frame.filename).is_relative_to(ROOT)
    ]
    return f"{type(error).__name__} in {places[-1] if places else 'the target'}"


def _disorder(given: Any, folder: Path, *, writes: bool) -> str:
    """Return what a run did to the files of its input, and what it left behind."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name, data in given.files.items():
        if Path(name).as_posix() not in found:
            return f"the input {name} is gone"
        if name not in given.replaced and found[Path(name).as_posix()].read_bytes() != data:
            return f"the input {name} is changed"
    left = sorted(found.keys() - {Path(name).as_posix() for name in given.files})
    if not writes and left:
        return "a file is left behind"
    if any(name.endswith(".tmp") or ".tmp." in name or Path(name).name.startswith(".") for name in left):
        return "a draft is left behind"
    return ""


def main() -> None:
    module, progress_file, log_file = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    log = Path(log_file).open("w")  # noqa: SIM115 (as long as the process)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    faulthandler.enable(log)
    with Path(progress_file).open("r+b") as file:
        progress = mmap.mmap(file.fileno(), PROGRESS.size)
    known: set[str] = set()
    for line in sys.stdin:
        name, start, count, seconds = line.split()
        target = importlib.import_module(module).TARGETS[name]

        def answer(**values: Any) -> None:
            answers.write(json.dumps(values) + "\n")
            answers.flush()

        block = _block(target, int(start), int(count), float(seconds), progress, log, answer, measured=name in known)
        known.add(name)
        log.seek(0)
        log.truncate()
        answer(done=block.done, taken=block.taken, refused=block.refused)


def _block(
    target: Any,
    start: int,
    count: int,
    seconds: float,
    progress: mmap.mmap,
    log: TextIO,
    answer: Callable[..., None],
    *,
    measured: bool,
) -> Block:
    """Try inputs, and ``answer`` each finding at once: the next input may end the process."""
    name, block = target.name, Block()
    _limit_memory()
    before, peak = _resident(), _peak()
    end = time.monotonic() + seconds
    for seed in range(start, start + count):
        progress[:] = PROGRESS.pack(seed, block.done, block.taken, block.refused)
        faulthandler.dump_traceback_later(target.slow, exit=True, file=log)
        try:
            outcome, finding = attempt(target, seed)
        finally:
            faulthandler.cancel_dump_traceback_later()
        grown, peak = _peak() - peak, _peak()
        if finding is None and grown > MEMORY:
            outcome, finding = "found", _finding(seed, f"{name}: memory", f"{grown >> 20} MiB more than before")
        block.done += 1
        if finding is not None:
            block.findings.append(finding)
            answer(**finding)
        elif outcome == "taken":
            block.taken += 1
        else:
            block.refused += 1
        if time.monotonic() > end or grown > MEMORY:
            break
    if measured and not block.findings and (grown := _resident() - before) > MEMORY // 2:
        text = f"{grown >> 20} MiB stay taken after {block.done} inputs from {start}"
        answer(**_finding(start, f"{name}: leak", text))
    return block


def _peak() -> int:
    status = Path("/proc/self/status").read_bytes()  # getrusage's peak begins with that of whoever started it
    return int(status[status.index(b"VmHWM:") + 6 :].split(maxsplit=1)[0]) * 1024


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))


class Worker:
    """A worker process, started when it is needed and again when it died."""

    def __init__(self, module: str = "tests.fuzz.faults") -> None:
        self._module = module
        self._process: subprocess.Popen[str] | None = None
        memory = Path("/dev/shm")  # making a folder on a busy disk takes longer than reading what is in it
        self._folder = Path(tempfile.mkdtemp(prefix="facelm-fuzz-worker-", dir=memory if memory.is_dir() else None))
        self._progress, self._log = self._folder / "progress", self._folder / "log"

    def run(self, target: str, start: int, count: int, seconds: float = 1e9) -> Block:
        """Try the inputs of ``count`` seeds, for about so many seconds; one that ends the process is the last."""
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._progress.write_bytes(PROGRESS.pack(start, 0, 0, 0))
        self._process.stdin.write(f"{target} {start} {count} {seconds}\n")
        self._process.stdin.flush()
        findings: list[dict[str, Any]] = []
        while answer := self._process.stdout.readline():
            values = json.loads(answer)
            if "done" not in values:
                findings.append(values)
                continue
            if any(found["signature"].endswith((": memory", ": leak")) for found in findings):
                self.close(keep=True)
            return Block(**values, findings=findings)
        block = self._died(target)
        return replace(block, findings=[*findings, *block.findings])

    def _start(self) -> None:
        self._progress.write_bytes(bytes(PROGRESS.size))
        environment = {**os.environ, "OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
        environment["TMPDIR"] = str(self._folder)
        # In a folder of its own: a target that writes beside itself must not do so in the repository.
        path = os.pathsep.join([str(ROOT), *(str(ROOT / part) for part in ("models", "export", "training"))])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [path, environment.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", self._module, str(self._progress), str(self._log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._folder,
            env=environment,
        )

    def _died(self, target: str) -> Block:
        assert self._process is not None
        code = self._process.wait()
        self._process = None
        seed, done, taken, refused = PROGRESS.unpack(self._progress.read_bytes())
        text = self._log.read_text("utf-8", "replace")
        if "Timeout (" in text:
            what = "hang"
        else:
            what = f"crash, {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return Block(done + 1, taken, refused, [_finding(seed, f"{target}: {what}", text)])

    def close(self, *, keep: bool = False) -> None:
        """End the process and, unless ``keep``, take away its folder."""
        if self._process is not None:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
            self._process = None
        if not keep:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def each(worker: Worker, target: str, start: int, count: int) -> Iterator[Block]:
    """Yield blocks until ``count`` seeds are tried, whatever dies on the way."""
    done = 0
    while done < count:
        block = worker.run(target, start + done, count - done)
        done += block.done
        yield block


if __name__ == "__main__":
    main()
