"""Commands that are killed at a random moment: what they write is whole or as it was, and the next run succeeds.

The moment hangs on the machine, so these inputs, unlike all others, are not the same again.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2

from . import seeds, targets
from .targets import Finding, Input, Target

OLD = b"what was here before"
SLOW = 900
"""Seconds after which a command is held to hang, on a machine however busy."""


@dataclass(frozen=True)
class Command:
    """A command line after ``python -m``, its inputs, and what it writes: whether a file of that name is whole."""

    line: tuple[str, ...]
    inputs: Callable[[], Mapping[str, bytes]]
    outputs: Mapping[str, Callable[[Path], bool]]


def _json(path: Path) -> bool:
    return "faces" in json.loads(path.read_bytes())


def _json_lines(path: Path) -> bool:
    return len([json.loads(line) for line in path.read_bytes().splitlines()]) == 12


def _object(path: Path) -> bool:
    return bool(json.loads(path.read_bytes()))


def _picture(path: Path) -> bool:
    from facelm_sdk import read_image

    return bool(read_image(path).size)


def _video(path: Path) -> bool:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count == 12


def _onnx(path: Path) -> bool:
    from facelm_sdk.runtimes.onnxruntime import OrtSession

    return OrtSession(path).spec.name != ""


def _text(path: Path) -> bool:
    return path.read_text("utf-8").startswith("# ")


def _weights(path: Path) -> bool:
    from facelm_models import restore

    return restore(path) is not None


def _pictures() -> dict[str, bytes]:
    return {f"in/{name}": seeds.pictures(160)[name] for name in ("plain.jpg", "colour.png", "turned.jpg")}


def _frames() -> dict[str, bytes]:
    return {"v.avi": seeds.videos()["a.avi"]}


def _recipe() -> dict[str, bytes]:
    text = """model = "fan2"
objective = "heatmap"
markup = "wflw98"
val = "test"
evaluate_every = 2
options = { stacks = 1, dim = 16, depth = 1 }
[[stages]]
name = "full"
size = 32
schedule = { steps = 4, batch = 2, warmup = 1 }
"""
    data = {f"wflw/{name}": content for name, content in seeds.datasets()["wflw"].items()}
    listing = data["wflw/list_98pt_rect_attr_test.txt"]
    return {"mine.toml": text.encode(), "wflw/list_98pt_rect_attr_train.txt": listing, **data}


COMMANDS = {
    "kill-align": Command(
        ("facelm_sdk", "align", "in", "-o", "out", "--draw", "-q"),
        _pictures,
        {f"out/{stem}.json": _json for stem in ("plain", "colour", "turned")}
        | {f"out/{stem}.jpg": _picture for stem in ("plain", "colour", "turned")},
    ),
    "kill-track": Command(
        ("facelm_sdk", "track", "v.avi", "-o", "o.avi", "--json-lines", "o.jsonl", "-q"),
        _frames,
        {"o.avi": _video, "o.jsonl": _json_lines},
    ),
    "kill-export": Command(
        ("facelm_export", "--model", "lotr_m_128", "--no-latency", "--out", "x.onnx"),
        dict,
        {"x.onnx": _onnx, "x.report.md": _text, "x.report.json": _object},
    ),
    "kill-train": Command(
        ("facelm_sdk", "train", "mine.toml", "--data", "wflw:wflw", "--out", "run", "--threads", "1"),
        _recipe,
        {"run/mine.safetensors": _weights},
    ),
}


def run(folder: Path, command: Command, kill_after: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, and kill it after so many seconds if it is still there."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command.line],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, said = process.communicate(timeout=SLOW if kill_after is None else kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
        if kill_after is None:
            raise Finding(f"{command.line[:2]} hangs") from None
    return subprocess.CompletedProcess(process.args, process.returncode, None, said)


def _write(folder: Path, command: Command, *, old: bool) -> None:
    for name, data in {**(dict.fromkeys(command.outputs, OLD) if old else {}), **command.inputs()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@cache
def _seconds(name: str) -> float:
    """How long a command takes here, once it is warm."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="facelm-fuzz-") as place:
        _write(Path(place), COMMANDS[name], old=False)
        started = time.monotonic()
        _succeed(Path(place), COMMANDS[name])
        return time.monotonic() - started


def _succeed(folder: Path, command: Command) -> None:
    done = run(folder, command)
    if done.returncode:
        raise Finding(f"{' '.join(command.line[:2])} fails: {done.stderr[-1000:]}")
    for name, is_whole in command.outputs.items():
        if not is_whole(folder / name):
            raise Finding(f"{name} is not whole")


def kill(folder: Path, name: str, part: float, old: bool) -> None:
    """Kill a command after ``part`` of the time that it takes, look at what is there, and run it again.

    Raises Finding, or what reading a broken file raises.
    """
    command = COMMANDS[name]
    _write(folder, command, old=old)
    run(folder, command, kill_after=part * _seconds(name))
    for output, is_whole in command.outputs.items():
        path = folder / output
        if old and not path.exists():
            raise Finding(f"{output} is gone, and what was there before")
        if path.exists() and not (old and path.read_bytes() == OLD) and not is_whole(path):
            raise Finding(f"{output} is half written")
    for source, data in command.inputs().items():
        if (folder / source).read_bytes() != data:
            raise Finding(f"the input {source} is changed")
    _succeed(folder, command)
    shutil.rmtree(folder)
    folder.mkdir()  # a killed process cannot take its drafts away


def _target(name: str, share: float) -> Target:
    def make(rng: random.Random) -> Input:
        return Input(arguments=(name, rng.uniform(0.2, 1.1), name != "kill-train" and rng.random() < 0.7))

    return Target(name, make, kill, share, writes=True, slow=4 * SLOW)


SHARES = {"kill-align": 0.05, "kill-track": 0.05, "kill-export": 0.005, "kill-train": 0.005}
TARGETS = {**targets.TARGETS, **{name: _target(name, share) for name, share in SHARES.items()}}
