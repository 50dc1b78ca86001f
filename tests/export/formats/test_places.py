"""Where the files of each format go."""

from __future__ import annotations

from pathlib import Path

import pytest

from facelm_export.formats import SUFFIXES, prepare
from facelm_sdk.errors import InputError


@pytest.fixture(autouse=True)
def every_runtime(monkeypatch):
    monkeypatch.setattr("facelm_export.formats._hook", lambda format, name: lambda *arguments: None)


@pytest.mark.parametrize("format", SUFFIXES)
def test_a_new_folder_is_taken_by_every_format(format, tmp_path):
    suffix = SUFFIXES[format]
    wanted = tmp_path / "new" / (f"model{suffix}" if suffix else "")
    assert prepare(format, f"{tmp_path}/new/", "model") == wanted
    assert not (tmp_path / "new").exists()  # before there is anything to write
    (tmp_path / "new").mkdir()
    assert prepare(format, tmp_path / "new", "model") == wanted
    if suffix:
        with pytest.raises(InputError, match=f"a folder or a file ending in {suffix}, not {tmp_path}/none"):
            prepare(format, Path(f"{tmp_path}/none"), "model")
