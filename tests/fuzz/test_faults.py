"""Kills, a disk that is full, a folder that takes nothing, two writers: nothing half written, nothing lost."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facelm_sdk.files import write_files

from . import faults, seeds

PROC = Path("/proc")


@pytest.mark.parametrize("name", ["kill-align", "kill-track"])
def test_a_killed_command_leaves_nothing_half_written(tmp_path, name):
    faults.kill(tmp_path, name, part=0.7, old=True)


WRITER = """
import sys
from pathlib import Path
from facelm_sdk.files import write_files

folder, letters = Path(sys.argv[1]), sys.argv[2:]
for letter in letters * 100:
    write_files({folder / name: letter.encode() * 100_000 for name in "ab"})
"""


def start(folder, *letters, **options):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), *letters], stderr=subprocess.PIPE, **options)


def test_two_writers_and_a_reader(tmp_path):
    write_files({tmp_path / name: b"0" * 100_000 for name in "ab"})
    writers, seen = [start(tmp_path, letter) for letter in "12"], set()
    while any(writer.poll() is None for writer in writers):
        data = (tmp_path / "a").read_bytes()
        assert len(data) == 100_000 and len(set(data)) == 1
        seen.add(data[:1])
    assert [writer.communicate()[1] for writer in writers] == [b"", b""]
    assert len(seen) > 1 and sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_killed_writer(tmp_path):
    """At several moments of its work; what it leaves is whole, and the next one is not disturbed by its drafts."""
    write_files({tmp_path / name: b"0" * 100_000 for name in "ab"})
    for delay in (0.0, 0.003, 0.01, 0.02):
        writer = start(tmp_path, "1", "2")
        before = (tmp_path / "a").stat().st_ino
        while (tmp_path / "a").stat().st_ino == before and writer.poll() is None:
            time.sleep(0.001)  # till it is at work
        time.sleep(delay)
        writer.kill()
        writer.communicate()
        for name in "ab":
            data = (tmp_path / name).read_bytes()
            assert len(data) == 100_000 and len(set(data)) == 1
    write_files({tmp_path / name: b"3" for name in "ab"})
    assert {(tmp_path / name).read_bytes() for name in "ab"} == {b"3"}


def align(folder, *options, **others):
    command = [sys.executable, "-m", "facelm_sdk", "align", "a.jpg", "-q", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=faults.SLOW, **others)


def small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))


def test_a_full_disk(tmp_path):
    """Files of more than 512 bytes cannot be written, as on a disk that fills."""
    (tmp_path / "a.jpg").write_bytes(seeds.pictures(160)["plain.jpg"])
    old = {"lines.jsonl": b"old lines", "out/a.json": b"old json", "out/a.jpg": b"old picture"}
    for name, data in old.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for options in (["--json-lines", "lines.jsonl"], ["-o", "out", "--draw"]):
        done = align(tmp_path, *options, preexec_fn=small_files)
        assert done.returncode in (1, 2) and "cannot be written: File too large" in done.stderr
        assert "Traceback" not in done.stderr
    found = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in found.items() if name != "a.jpg"} == old


@pytest.mark.skipif(not PROC.is_dir(), reason="needs a folder in which nobody may write")
def test_a_folder_that_takes_nothing(tmp_path):
    (tmp_path / "a.jpg").write_bytes(seeds.pictures(160)["plain.jpg"])
    done = align(tmp_path, "-o", "/proc/out")
    assert done.returncode in (1, 2) and "cannot be written" in done.stderr and "Traceback" not in done.stderr
