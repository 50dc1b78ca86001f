"""Writing whole files or none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from facelm_sdk.errors import FacelmError, OutputError
from facelm_sdk.files import check_place, write_bytes, write_files


def test_a_file_and_its_folder(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("blocked", ["folder", "file"])
def test_what_cannot_be_written_is_told_and_leaves_nothing(tmp_path, blocked):
    if blocked == "folder":
        (tmp_path / "a").write_text("a file where a folder should be")
    else:
        (tmp_path / "a" / "file.bin" / "inside").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=r"file\.bin cannot be written: ") as caught:
        write_bytes(tmp_path / "a" / "file.bin", b"data")
    assert isinstance(caught.value, OSError) and isinstance(caught.value, FacelmError)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_of_several_files_all_are_written_or_none(tmp_path, monkeypatch, error):
    """The second does not fit on the disk, or comes as the user interrupts."""
    write = Path.write_bytes

    def failing(path, data):
        write(path, data[:2])
        if len(data) > 2:
            raise error

    kept = tmp_path / "kept.bin"
    kept.write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", failing)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_files({kept: b"ne", tmp_path / "a" / "b" / "large.bin": b"too large"})
    if expected is OutputError:
        assert "large.bin cannot be written: No space left on device" in str(caught.value)
    assert kept.read_bytes() == b"old"
    assert [path.name for path in tmp_path.rglob("*")] == ["kept.bin"]


def test_a_place_is_looked_at_beforehand(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    check_place(tmp_path / "new" / "folder" / "x.onnx")
    with pytest.raises(OutputError, match=r"x\.onnx cannot be written: .*file is a file, not a folder"):
        check_place(tmp_path / "file" / "new" / "x.onnx")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(OutputError, match="no permission to write in"):
        check_place(tmp_path / "x.onnx")
