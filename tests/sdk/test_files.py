"""Writing whole files or none."""

from __future__ import annotations

import pytest

from facelm_sdk.errors import FacelmError, OutputError
from facelm_sdk.files import write_bytes


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
