"""The long run: ``python -m tests.fuzz --minutes 60``. It goes on where the last one with that ``--folder`` ended.

``--target NAME --seed N`` repeats one input, ``--keep DIR`` writes its files; ``--results FILE`` writes the table of
what is in the folder, each finding tried again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from facelm_sdk.files import write_bytes
from facelm_sdk.zoo import cache_dir

from .faults import TARGETS
from .worker import ROOT, Block, Worker, attempt, write

SECONDS = 5.0
"""About as long a block takes, after which the target that is furthest behind its share has its turn."""
KEPT = 5
"""Seeds kept of a finding."""


class Run:
    """What was tried so far, in ``state.json`` of a folder."""

    def __init__(self, folder: Path) -> None:
        self._file, self._lock, self._written = folder / "state.json", threading.Lock(), 0.0
        with contextlib.suppress(FileNotFoundError):
            self.state: dict[str, dict[str, Any]] = json.loads(self._file.read_text("utf-8"))
            return
        self.state = {}

    def save(self) -> None:
        """Write the state down."""
        write_bytes(self._file, json.dumps(self.state, indent=1).encode())
        self._written = time.monotonic()

    def of(self, target: str) -> dict[str, Any]:
        """Return the counts of a target; seeds below ``next`` are tried or being tried."""
        return self.state.setdefault(target, {"next": 0, "done": 0, "taken": 0, "refused": 0, "findings": {}})

    def claim(self, names: list[str], count: int) -> tuple[str, int]:
        """Return the target that is furthest behind its share, and the first of ``count`` seeds that are now taken."""
        with self._lock:
            name = min(names, key=lambda one: self.of(one)["next"] / TARGETS[one].share)
            start = self.of(name)["next"]
            self.of(name)["next"] = start + count
            return name, start

    def give_back(self, name: str, start: int, end: int) -> None:
        """Free seeds that were claimed and not tried, where nobody has claimed further ones."""
        with self._lock:
            if self.of(name)["next"] == end:
                self.of(name)["next"] = start

    def add(self, name: str, block: Block) -> list[str]:
        """Count a block; return what is new in it."""
        new = []
        with self._lock:
            counts = self.of(name)
            for key in ("done", "taken", "refused"):
                counts[key] += getattr(block, key)
            for found in block.findings:
                fresh = {"count": 0, "seeds": [], "text": found["text"]}
                entry = counts["findings"].setdefault(found["signature"], fresh)
                if not entry["count"]:
                    new.append(f"{found['signature']}\n  python -m tests.fuzz --target {name} --seed {found['seed']}")
                entry["count"] += 1
                entry["seeds"] = [*entry["seeds"], found["seed"]][:KEPT]
            if new or time.monotonic() > self._written + SECONDS:
                self.save()
        return new


def fuzz(run: Run, names: list[str], minutes: float, workers: int) -> None:
    """Try inputs for so long."""
    end = time.monotonic() + 60 * minutes

    def work(_: int) -> None:
        with Worker() as worker:
            while (left := end - time.monotonic()) > 0:
                count = 2000
                name, start = run.claim(names, count)
                done = 0
                until = time.monotonic() + min(SECONDS, left)
                while done < count and (seconds := until - time.monotonic()) > 0:
                    block = worker.run(name, start + done, count - done, seconds)
                    done += block.done
                    for line in run.add(name, block):
                        say(line)
                run.give_back(name, start + done, start + count)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    run.save()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def now(name: str, signature: str, entry: dict[str, Any], worker: Worker) -> str:
    """Return what the kept seeds of a finding give by now: open, or gone."""
    if signature.endswith(": leak"):
        return "of a block, not tried again"
    return "open" if any(worker.run(name, seed, 1).findings for seed in entry["seeds"]) else "gone"


def table(run: Run) -> str:
    """Return what was tried and what came of it, as Markdown."""
    rows, notes = [], []
    with Worker() as worker:
        for name, counts in sorted(run.state.items()):
            found = sum(entry["count"] for entry in counts["findings"].values())
            rows.append(f"| {name} | {counts['done']:,} | {counts['taken']:,} | {counts['refused']:,} | {found:,} |")
            for signature, entry in sorted(counts["findings"].items()):
                state = now(name, signature, entry, worker)
                notes.append(f"| {name} | {signature} | {entry['count']:,} | {entry['seeds'][0]} | {state} |")
    sums = [sum(counts[key] for counts in run.state.values()) for key in ("done", "taken", "refused")]
    found = sum(entry["count"] for counts in run.state.values() for entry in counts["findings"].values())
    total = "| **all** | " + " | ".join(f"**{value:,}**" for value in (*sums, found)) + " |"
    lines = [
        "# The long run",
        "",
        "Written by `python -m tests.fuzz --results tests/fuzz/RESULTS.md`. An input is taken, refused by a typed",
        "error, or a finding: another exception, a crash, a hang, much memory, a file of the input changed or one left",
        "behind. Findings are mended while the run goes on; `now` is what their seeds give as this table is written.",
        "",
        f"{_surroundings()}.",
        "",
        "| target | inputs | taken | refused | findings |",
        "|---|--:|--:|--:|--:|",
        *rows,
        total,
        "",
        *(
            ["| target | finding | times | a seed | now |", "|---|---|--:|--:|---|", *notes]
            if notes
            else ["No finding."]
        ),
    ]
    return "\n".join(lines) + "\n"


def _surroundings() -> str:
    """Return the commit and the versions of what does the reading."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    versions = []
    for name in (
        "numpy",
        "opencv-python",
        "opencv-python-headless",
        "onnxruntime",
        "openvino",
        "torch",
        "scipy",
        "h5py",
    ):
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    return f"Commit {commit.strip()}, Python {platform.python_version()}, {', '.join(versions)}"


def repeat(name: str, seed: int, keep: Path | None) -> int:
    """Try one input here, so that a debugger sees it. Return 1 for a finding."""
    given = TARGETS[name].input(seed)
    if keep is not None:
        write(given, keep)
    say(f"files {', '.join(given.files) or 'none'}; arguments {given.arguments!r}"[:2000])
    outcome, finding = attempt(TARGETS[name], seed)
    say(outcome if finding is None else f"{finding['text']}\n{finding['signature']}")
    return int(finding is not None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="this one only; may be repeated")
    parser.add_argument("--seed", type=int, help="repeat this input of --target")
    parser.add_argument("--keep", type=Path, help="write the files of --seed there")
    parser.add_argument(
        "--folder", type=Path, default=cache_dir() / "fuzz", help="of the state, outside the repository"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--results", type=Path, help="write the table of what was tried so far")
    options = parser.parse_args()
    names = options.target or sorted(TARGETS)
    if options.seed is not None:
        return max(repeat(name, options.seed, options.keep) for name in names)
    run = Run(options.folder)
    if options.results is not None:
        write_bytes(options.results, table(run).encode())
        return 0
    os.nice(5)
    fuzz(run, names, options.minutes, options.workers)
    found = sum(len(run.of(name)["findings"]) for name in names)
    done = sum(run.of(name)["done"] for name in names)
    say(f"{done:,} inputs so far, {found} kinds of findings; see {options.folder}")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
