"""Scores, and what a release enters into the package."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from facelm_sdk import zoo
from facelm_sdk.errors import ChecksumError, InputError
from facelm_training.cli import train_command
from facelm_training.figures import plot_ced
from facelm_training.release import _enter
from facelm_training.release_scores import predict


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


def test_predictions_are_of_the_labelled_face(faces):
    """An aligner that finds nothing in the first picture, and a stranger beside the labelled face in the others."""

    def found(points):
        box = np.concatenate([points.min(0), points.max(0)])
        return SimpleNamespace(bbox=box, landmarks=points)

    calls = []

    def aligner(image, kps=None):
        index = len(calls)
        calls.append(kps)
        return [] if index == 0 else [found(faces.points[index] + 90), found(faces.points[index] + 1)]

    points = predict(aligner, faces, detect=True)
    assert np.isnan(points[0]).all()
    np.testing.assert_allclose(points[1:], faces.points[1:] + 1, rtol=1e-6)
    assert calls == [None] * len(faces)
    calls.clear()
    predict(aligner, faces, detect=False)
    assert all(kps is faces.kps[i] or np.array_equal(kps, faces.kps[i]) for i, kps in enumerate(calls))


def test_the_plot(tmp_path):
    plot_ced({"one": np.array([0.02, 0.05, np.nan])}, tmp_path / "ced.png", "errors")
    assert (tmp_path / "ced.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_recipes_are_told(tmp_path):
    app = Typer()
    app.command()(train_command)
    result = CliRunner().invoke(app, ["lotr_x", "--data", str(tmp_path), "--out", str(tmp_path)])
    assert isinstance(result.exception, InputError)
    assert "lotr_m, " in str(result.exception)
