"""The examples of videos and processes, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from facelm_sdk import VideoReader, VideoWriter

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def run(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_follow_video(tmp_path):
    pytest.importorskip("av", reason="times are PyAV's")
    picture = cv2.imread(str(EXAMPLES / "pictures" / "collins.jpg"))
    with VideoWriter(tmp_path / "in.mp4", 25) as writer:
        for seconds in (0, 0.04, 0.5):
            writer.write(picture, seconds)
    lines = run("follow_video.py", tmp_path / "in.mp4", tmp_path / "out.mp4")
    assert lines == ["0.00 s: face 1", "0.04 s: face 1", "0.50 s: face 1"]
    times, frames = zip(*VideoReader(tmp_path / "out.mp4").timed(), strict=True)
    assert [round(seconds, 2) for seconds in times] == [0, 0.04, 0.5] and frames[0].shape == picture.shape


def test_processes():
    pictures = [EXAMPLES / "pictures" / f"{name}.jpg" for name in ("collins", "group")]
    assert run("processes.py", *pictures) == [f"{pictures[0]}: 1 faces", f"{pictures[1]}: 7 faces"]
