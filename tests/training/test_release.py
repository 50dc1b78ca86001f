"""Scores, and what a release enters into the package."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from facelm_sdk import zoo
from facelm_sdk.errors import ChecksumError, InputError
from facelm_training.cli import train_command
from facelm_training.figures import plot_ced
from facelm_training.release import _enter


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


def test_unknown_recipes_are_told(tmp_path):
    app = Typer()
    app.command()(train_command)
    result = CliRunner().invoke(app, ["lotr_x", "--data", str(tmp_path), "--out", str(tmp_path)])
    assert isinstance(result.exception, InputError)
    assert "lotr_m, " in str(result.exception)
