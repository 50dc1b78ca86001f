"""Scores, and what a release enters into the package."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open
from typer import Typer
from typer.testing import CliRunner

import facelm_export
from facelm_models import create
from facelm_models.weights import save
from facelm_sdk import zoo
from facelm_sdk.errors import ChecksumError, InputError, ModelFileError, OutputError
from facelm_sdk.pose import HEAD_68
from facelm_training import datasets, release
from facelm_training.cli import train_command
from facelm_training.datasets.base import build
from facelm_training.evaluation import score
from facelm_training.figures import plot_ced
from facelm_training.release import _by_yaw, _enter, _markdown, release_command


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
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


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """One with a detector's weights, whose exports and scores are made up: the export holds the weights' own bytes."""
    weights = tmp_path / release.CHECKPOINTS / "retinaface_mnet025.safetensors"
    weights.parent.mkdir(parents=True)
    save(weights, create("retinaface_mnet025"), {"model": "retinaface_mnet025"})

    def export(name, *, out, weights, **_):
        out.parent.mkdir(exist_ok=True)
        out.write_bytes(weights.read_bytes())
        return SimpleNamespace(path=out)

    monkeypatch.setattr(facelm_export, "export", export)
    monkeypatch.setattr(release, "_detection", lambda *_: ({"frames/val": {"all": {"recall": 97}}}, {"fp32": {"x": 1}}))
    return tmp_path


def test_a_release_writes_all_or_none_and_never_over_its_weights(repository):
    folder, runtime = repository / release.CHECKPOINTS, repository / release.RUNTIME
    stored = folder / "retinaface_mnet025.safetensors"
    before = stored.read_bytes()
    link = repository / "mine.safetensors"
    link.symlink_to(stored)
    for weights in (stored, link):
        with pytest.raises(InputError, match=r"the release's retinaface_mnet025\.safetensors .* over what is read"):
            release_command(weights, repository, repository=repository)
    assert stored.read_bytes() == before and not runtime.exists()

    mine = repository / "copy.safetensors"
    mine.write_bytes(before)
    (runtime / "manifest.json").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"manifest\.json .* is a folder"):
        release_command(mine, repository, repository=repository)
    assert stored.read_bytes() == before and len([*folder.iterdir()]) == 1

    (runtime / "manifest.json").rmdir()
    release_command(mine, repository, repository=repository)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"retinaface_mnet025.{ending}" for ending in ("json", "md", "safetensors")
    ]
    with safe_open(stored, "np") as file:
        assert json.loads(file.metadata()["facelm"])["accuracy"] == {"x": 1}
    assert (runtime / "retinaface_mnet025.onnx").read_bytes() == stored.read_bytes() != before
    (entry,) = json.loads((runtime / "manifest.json").read_text())["models"]
    assert entry["sha256"] == hashlib.sha256(stored.read_bytes()).hexdigest() and mine.read_bytes() == before


def test_a_checkpoint_that_is_not_embedded_is_kept_in_half_precision(repository):
    mine = repository / "mine.safetensors"
    (repository / release.CHECKPOINTS / "retinaface_mnet025.safetensors").rename(mine)
    release_command(mine, repository, embed=False, repository=repository)
    assert not (repository / release.RUNTIME).exists()
    stored = repository / release.CHECKPOINTS / "retinaface_mnet025.safetensors"
    assert stored.stat().st_size < 0.6 * mine.stat().st_size
    with safe_open(stored, "np") as file, safe_open(mine, "np") as before:
        assert json.loads(file.metadata()["facelm"])["accuracy"] == {"x": 1}
        for key in before.keys():  # noqa: SIM118 (it cannot be iterated)
            np.testing.assert_allclose(file.get_tensor(key), before.get_tensor(key), rtol=1e-3, atol=1e-7)


def test_what_holds_no_weights_is_told(tmp_path):
    (tmp_path / "text.safetensors").write_text("hello")
    for name, told in (("none", "there is no weights file"), ("text", "not a readable safetensors file")):
        with pytest.raises(ModelFileError, match=told):
            release_command(tmp_path / f"{name}.safetensors", tmp_path, repository=tmp_path)


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
