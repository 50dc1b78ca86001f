"""``facelm data``: where data sets are had, and archives laid out."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from facelm_sdk.errors import InputError, OutputError
from facelm_training import datasets
from facelm_training.cli import read_faces
from facelm_training.data_cli import data_command
from facelm_training.recipe import read

app = Typer()
app.command()(data_command)
JPEG = cv2.imencode(".jpg", np.zeros((120, 100, 3), np.uint8))[1].tobytes()
PTS = "version: 1\nn_points: 68\n{\n" + "\n".join(f"{10 + i} {20 + i % 9}" for i in range(68)) + "\n}\n"


def invoke(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def pack(path, files):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for name, data in files.items():
                packed.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz") as tape:
        for name, data in files.items():
            data = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tape.addfile(member, io.BytesIO(data))
    return path


def faces(folder, count=2):
    return {f"{folder}{i}.{kind}": data for i in range(count) for kind, data in (("jpg", JPEG), ("pts", PTS))}


def test_every_data_set_is_listed_with_its_home():
    lines = invoke().stdout.splitlines()
    assert [line.split()[0] for line in lines] == datasets.names()
    for line, info in zip(lines, datasets.READERS.values(), strict=True):
        assert info.home and info.terms and line.endswith(info.home)
        assert re.search(r"https?://|not to be had", info.home)
    text = invoke("wflw").stdout
    for part in (
        "wflw98",
        "train 7,500, test 2,500",
        "WFLW_images.tar.gz",
        "research only",
        "WFLW_annotations/list_98pt",
    ):
        assert part in text
    assert isinstance(invoke("lfw").exception, InputError)


def test_300w_is_laid_out(tmp_path):
    archives = [
        pack(tmp_path / "helen.zip", faces("trainset/") | faces("testset/") | {"__MACOSX/testset/._0.jpg": b"x"}),
        pack(tmp_path / "lfpw.zip", faces("lfpw/trainset/") | faces("lfpw/testset/")),
        pack(tmp_path / "afw.zip", faces("")),
    ]
    out = tmp_path / "300W"
    assert "Add -o DIR" in str(invoke("300w", *archives).exception)
    result = invoke("300w", *archives, "-o", out)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        f"{archive}: {count} files into {out}" for archive, count in zip(archives, (8, 8, 4), strict=True)
    ]
    assert lines[3] == "300w/train: 6 faces of 3148" and "300w/test: " in lines[4] and "ibug" in lines[4]
    assert not (out / "__MACOSX").exists() and not list(out.rglob(".facelm*"))
    assert len(datasets.open(f"300w/common:{out}")) == 4
    (out / "afw" / "0.jpg").write_bytes(b"mine")
    (out / "afw" / "1.jpg").unlink()
    again = invoke("300w", archives[2], "-o", out)
    assert f"{archives[2]}: 1 file into {out}, 3 were there" in again.stdout
    assert (out / "afw" / "0.jpg").read_bytes() == b"mine" and (out / "afw" / "1.jpg").read_bytes() == JPEG


def test_wflw_is_laid_out(tmp_path):
    line = " ".join([*(["30 40"] * 98), "10 10 90 90", "0 1 0 0 0 0", "0--Parade/a.jpg\n"])
    inner = "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt"
    archives = [
        pack(tmp_path / "WFLW_images.tar.gz", {"WFLW_images/0--Parade/a.jpg": JPEG}),
        pack(tmp_path / "WFLW_annotations.tar.gz", {inner: line}),
    ]
    result = invoke("wflw", *archives, "-o", tmp_path / "WFLW")
    assert result.exit_code == 0 and "wflw/test: 1 face of 2500" in result.stdout
    assert (tmp_path / "WFLW" / inner).read_text() == line


def test_folders_that_hold_all_are_taken_off(tmp_path):
    archive = pack(tmp_path / "aflw-images-0.tar.gz", {"aflw/data/flickr/0/a.jpg": JPEG})
    (tmp_path / "AFLWinfo_release.mat").write_bytes(b"points")
    out = tmp_path / "AFLW"
    result = invoke("aflw19", archive, tmp_path / "AFLWinfo_release.mat", "-o", out)
    assert result.exit_code == 1  # it is not all there
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "AFLWinfo_release.mat",
        "data/flickr/0/a.jpg",
    ]


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "a/../../b.jpg", "C:/a.jpg"])
@pytest.mark.parametrize("kind", [".zip", ".gz"])
def test_nothing_is_written_elsewhere(tmp_path, name, kind):
    archive = pack(tmp_path / f"helen{kind}", {"testset/1.jpg": JPEG, name: JPEG})
    error = invoke("300w", archive, "-o", tmp_path / "out").exception
    assert isinstance(error, InputError) and "outside of the folder" in str(error)
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]


def test_what_cannot_be_unpacked(tmp_path):
    whole = pack(tmp_path / "helen.tar.gz", faces("testset/", 50)).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.zip").write_text("no archive")
    for name, message in (
        ("cut.tar.gz", "damaged"),
        ("text.zip", "is no archive"),
        ("none.zip", "cannot be read: No such"),
    ):
        error = invoke("300w", tmp_path / name, "-o", tmp_path / "out").exception
        assert isinstance(error, InputError) and message in str(error), error
    (tmp_path / "file").touch()
    good = pack(tmp_path / "afw.zip", faces(""))
    assert isinstance(invoke("300w", good, "-o", tmp_path / "file" / "out").exception, OutputError)
    assert isinstance(invoke("300w", good, "-o", Path("/proc/self")).exception, OutputError)


def test_a_recipe_takes_what_is_laid_out(tmp_path, monkeypatch):
    """The default landmarker's recipe names data sets that are not to be had; 300-W stands in for them."""
    for folder in ("afw", "helen/trainset", "lfpw/trainset"):
        (tmp_path / folder).mkdir(parents=True)
        for name, data in faces("", 20).items():
            (tmp_path / folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    monkeypatch.setattr("facelm_training.data.faces_of", lambda part, limit: part)  # whose detector takes its time
    train, held_out = read_faces(read("lotr_m_128"), [f"300w:{tmp_path}"], None)
    assert (len(train), len(held_out)) == (57, 3)
