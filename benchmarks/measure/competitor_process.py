"""The other end of competitors.py: a competitor as a side of a comparison."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .interleaved import Variant
from .machine import THREADS

PYTHON = os.environ.get("FACELM_BENCH_PEERS", sys.executable)
"""The Python that the competitors are installed in."""


def competitor(name: str, picture: Path, *, must_find: bool = True) -> Variant:
    """A competitor, opened in its own process; skipped, with its reason, where it is not to be had."""
    ask, about = started(name, picture)
    assert about["found"] or not must_find, f"{name} finds no face"
    return Variant(runs=ask, info={f"peer_{key}": value for key, value in about.items()})


def started(name: str, picture: Path) -> tuple[Callable[[int | str], Any], dict[str, Any]]:
    """Return what asks a competitor's process for the times of runs or the faces of a file, and what it says of itself.

    The process ends with the function. Skips, with the reason, where there is no such competitor here.
    """
    script = Path(__file__).with_name("competitors.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        [PYTHON, str(script), name, str(picture), str(THREADS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**environment, "OMP_NUM_THREADS": str(THREADS)},
    )

    def read() -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{name} ended with code {process.wait()}")
        return json.loads(line)

    def ask(request: int | str) -> Any:
        assert process.stdin is not None
        process.stdin.write(f"{json.dumps(request)}\n")
        process.stdin.flush()
        return read()

    about = read()
    if "unavailable" in about:
        process.wait()
        pytest.skip(about["unavailable"])
    weakref.finalize(ask, process.kill)
    return ask, about
