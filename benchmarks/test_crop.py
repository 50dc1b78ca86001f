"""Cutting crops, which no network has a part in."""

from __future__ import annotations

import numpy as np

from facelm_export.samples import PICTURE_KPS
from facelm_sdk.transform import ARCFACE_112, CropTransform, kps5_recipe


def test_landmark_crop(measure, picture):
    recipe = kps5_recipe(192, zoom=0.875, shift=(0.5, 22.5))
    crop = measure("crop of 192 px", "OpenCV", lambda: recipe.transform(kps=PICTURE_KPS).warp(picture))
    assert crop.shape == (192, 192, 3)


def test_arcface_crop(measure, picture):
    template = np.asarray(ARCFACE_112)
    crop = measure(
        "ArcFace crop of 112 px",
        "OpenCV",
        lambda: CropTransform.from_kps5(PICTURE_KPS, template, 112).warp(picture),
    )
    assert crop.shape == (112, 112, 3)


def test_crop_of_a_large_picture(measure, picture):
    """A face of 1,600 pixels: shrunk by areas first, so that nothing aliases."""
    large = np.kron(picture, np.ones((8, 8, 1), np.uint8))
    recipe = kps5_recipe(192, zoom=0.875, shift=(0.5, 22.5))
    kps = 8 * PICTURE_KPS + 3.5
    crop = measure("crop of 192 px from 4096x4096", "OpenCV", lambda: recipe.transform(kps=kps).warp(large))
    assert crop.shape == (192, 192, 3)
