"""The examples run, from any folder, and say and write what they promise."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import cv2
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    def example(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return example


def test_quickstart(run):
    out = run("quickstart.py")
    assert "nose tip" in out and "ArcFace crop (112, 112, 3)" in out
    assert cv2.imread("annotated.jpg") is not None


def test_pose(run):
    out = run("pose.py")
    assert out.count("looks") == 1 and "eyes 0.3" in out and "mouth 0.0" in out
    original, drawn = cv2.imread(str(EXAMPLES / "pictures" / "hopper.jpg")), cv2.imread("pose.jpg")
    assert drawn.shape == original.shape and (drawn != original).any()


def test_interop(run):
    pytest.importorskip("supervision")
    out = run("interop.py")
    assert "COCO holds 7 faces; Face(" in out and "and back from JSON: Face(" in out
    assert len(json.loads(Path("coco.json").read_text())["annotations"]) == 7
    assert Path("face.pts").read_text().startswith("version: 1\nn_points: 68\n")
    assert cv2.imread("supervision.jpg").shape == cv2.imread(str(EXAMPLES / "pictures" / "group.jpg")).shape
    assert 1 <= out.partition("large enough:")[2].count("Face(") < 7


def test_interop_without_supervision(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(SystemExit, match="supervision is not installed"):
        run("interop.py")
    assert Path("coco.json").is_file()
