"""Model names and checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from facelm_sdk import Landmarker, zoo
from facelm_sdk.errors import ChecksumError, ModelFileError, UnknownModelError


@pytest.fixture
def weights(tmp_path, embed, landmark_model):
    embed(landmark_model())
    return tmp_path


def test_names(weights):
    assert [entry.name for entry in zoo.list_models()] == ["tiny"]
    assert zoo.resolve("tiny").path == weights / "tiny.onnx"
    assert Landmarker("tiny").spec.name == "tiny"


def test_unknown_name_lists_the_names(weights):
    with pytest.raises(UnknownModelError, match=r"'lotr_x'; there are: tiny; .*path to an \.onnx"):
        zoo.resolve("lotr_x")


def test_no_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_WEIGHTS", tmp_path)
    assert zoo.list_models() == []
    with pytest.raises(UnknownModelError, match="there are: none"):
        zoo.resolve("tiny")


def test_damaged_embedded_file(weights):
    path = weights / "tiny.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ChecksumError, match=r"tiny\.onnx has sha256"):
        Landmarker("tiny")


def test_missing_embedded_file(weights):
    (weights / "tiny.onnx").unlink()
    with pytest.raises(ModelFileError, match="reinstall"):
        zoo.resolve("tiny")


def test_paths(weights, tmp_path):
    path = weights / "tiny.onnx"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert zoo.resolve(path).sha256 is None
    assert zoo.resolve(str(path), sha256=digest.upper()).name == "tiny"
    with pytest.raises(ChecksumError):
        zoo.resolve(path, sha256="0" * 64)
    with pytest.raises(ChecksumError):
        zoo.resolve("tiny", sha256="0" * 64)
    with pytest.raises(ModelFileError, match="no model file"):
        zoo.resolve(tmp_path / "other.onnx")


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("FACELM_CACHE", str(tmp_path))
    assert zoo.cache_dir() == tmp_path
    monkeypatch.delenv("FACELM_CACHE")
    assert isinstance(zoo.cache_dir(), Path)
    assert zoo.cache_dir().name == "facelm"
