"""Scores, and what a release enters into the package."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from facelm_sdk import zoo
from facelm_sdk.errors import ChecksumError, InputError
from facelm_sdk.pose import HEAD_68
from facelm_training import datasets
from facelm_training.cli import train_command
from facelm_training.datasets.base import build
from facelm_training.evaluation import score
from facelm_training.figures import plot_ced
from facelm_training.release import _by_yaw, _enter, _markdown


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_WEIGHTS", tmp_path)
    for name in ("b", "a"):
        (tmp_path / f"{name}.onnx").write_bytes(name.encode())
    return tmp_path


def test_the_manifest_is_what_the_runtime_reads(package):
    manifest = package / "manifest.json"
    _enter(manifest, "b", "landmarks", package / "b.onnx")
    _enter(manifest, "a", "detection", package / "a.onnx")
    assert [(entry.name, entry.task) for entry in zoo.list_models()] == [("a", "detection"), ("b", "landmarks")]
    assert zoo.resolve("b").sha256 == hashlib.sha256(b"b").hexdigest()


def test_a_new_release_replaces_the_old_entry(package):
    manifest = package / "manifest.json"
    for name in ("a", "b"):
        _enter(manifest, name, "landmarks", package / f"{name}.onnx")
    (package / "a.onnx").write_bytes(b"better")
    with pytest.raises(ChecksumError):
        zoo.resolve("a")
    _enter(manifest, "a", "landmarks", package / "a.onnx")
    assert [entry["name"] for entry in json.loads(manifest.read_text())["models"]] == ["a", "b"]
    assert zoo.resolve("a").path == package / "a.onnx"
    assert manifest.read_text().endswith("\n")


def test_the_plot(tmp_path):
    plot_ced({"one": np.array([0.02, 0.05, np.nan])}, tmp_path / "ced.png", "errors")
    assert (tmp_path / "ced.png").read_bytes().startswith(b"\x89PNG")


def test_the_card_has_errors_by_yaw_and_links_its_pictures():
    """Figures of one face that looks ahead, off by a known part of the eye distance; int8 twice as far."""
    points = 10 * HEAD_68[:, :2] + 200
    sample = build("ibug68", ["a"], [Path("x")], points[None])
    dataset = datasets.Dataset(datasets.READERS["300w"], "private", tuple(sample))
    eyes = dataset[0].norms["inter_ocular"]
    scores = {
        name: [score(dataset, points[None] + (part * eyes, 0), "ibug68")]
        for name, part in (("fp32", 0.03), ("int8", 0.06), ("fp32, flip averaging", 0.01))
    }
    tables = _by_yaw(scores)
    row = tables["300w/private by yaw"]["0-15 degrees"]
    assert (row["faces"], row["fp32, nme"], row["int8, nme"]) == (1, 3.0, 6.0)
    assert row["int8, nme by box size"] == pytest.approx(2 * row["fp32, nme by box size"], abs=2e-3)
    assert tables["300w/private by yaw"]["45-90 degrees"]["faces"] == 0 and len(row) == 5
    card = _markdown("x", "landmarks", {"licence": "none"}, tables)
    assert "| 45-90 degrees | 0 | - | - | - | - |" in card
    assert "### 300w/private by yaw" in card and "(x_sheet.jpg)" in card and "(x_ced.png)" in card
    assert "_sheet.jpg" not in _markdown("x", "detection", {"licence": "none"}, {})


def test_unknown_recipes_are_told(tmp_path):
    app = Typer()
    app.command()(train_command)
    result = CliRunner().invoke(app, ["lotr_x", "--data", str(tmp_path), "--out", str(tmp_path)])
    assert isinstance(result.exception, InputError)
    assert "lotr_m, " in str(result.exception)
