"""Zip files of training pictures, and damaged ones."""

from __future__ import annotations

import zipfile

import cv2
import numpy as np
import pytest

from facelm_sdk.errors import ImageError
from facelm_training.archives import read_zipped
from facelm_training.datasets.base import read_stored

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", cv2.imencode(".png", PICTURE)[1].tobytes())
        file.writestr("text.png", "not a picture")
        file.writestr("empty.png", "")
    return path


def test_pictures_are_read_in_order(archive):
    for image in read_zipped(archive, ["a.png", "a.png"]):
        np.testing.assert_array_equal(image, PICTURE)
    for name, told in (("text.png", "not a picture"), ("empty.png", "the file is empty")):
        with pytest.raises(ImageError, match=rf"pictures\.zip: {name}: {told}"):
            read_zipped(archive, ["a.png", name])
    with pytest.raises(ImageError, match=r"lacks a picture.*none\.png"):
        read_zipped(archive, ["none.png"])


def test_damage_is_told(archive):
    whole, rng, told = archive.read_bytes(), np.random.default_rng(1), 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= int(rng.integers(1, 256))
        archive.write_bytes(damaged)
        try:
            (image,) = read_zipped(archive, ["a.png"])
        except ImageError as error:
            told += 1
            assert "pictures.zip" in str(error)
        else:
            np.testing.assert_array_equal(image, PICTURE)
    assert told > 200
    archive.write_bytes(whole[:100])
    with pytest.raises(ImageError, match="cannot be read"):
        read_zipped(archive, ["a.png"])


def test_pictures_that_are_too_large_are_refused_before_they_are_decoded(archive, monkeypatch):
    """The header of a small file can promise gigabytes; the limit is that of read_image."""
    picture = archive.with_name("a.png")
    picture.write_bytes(cv2.imencode(".png", PICTURE)[1].tobytes())
    for limit in ("600", ""):
        monkeypatch.setenv("FACELM_MAX_PIXELS", limit)
        assert read_stored(picture).shape == read_zipped(archive, ["a.png"])[0].shape == PICTURE.shape
    monkeypatch.setenv("FACELM_MAX_PIXELS", "599")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    told = r"a\.png: 30 x 20 pixels are more than 599; .*FACELM_MAX_PIXELS"
    for read in (lambda: read_stored(picture), lambda: read_zipped(archive, ["a.png"])):
        with pytest.raises(ImageError, match=told):
            read()
