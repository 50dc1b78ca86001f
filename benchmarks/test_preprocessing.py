"""Cutting crops, which no network has a part in, and the first nodes of the graph: layout, channels, normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facelm_export.report.samples import PICTURE, PICTURE_KPS
from facelm_export.wrappers import PixelInput
from facelm_models import create, info
from facelm_sdk.images.read import read_image
from facelm_sdk.transform import ARCFACE_112, CropTransform, kps5_recipe

from .measure.graphs import session_of
from .measure.interleaved import Variant


@pytest.mark.parametrize("crop", ["landmarks192", "arcface112", "landmarks192_of_4096px"])
def test_crop(interleaved, crop):
    """A crop by five points; of a face of 1,600 pixels it is shrunk by areas first, so that nothing aliases."""
    image = read_image(PICTURE)
    recipe, template = kps5_recipe(192, zoom=0.875, shift=(0.5, 22.5)), np.asarray(ARCFACE_112)
    large, kps = np.kron(image, np.ones((8, 8, 1), np.uint8)), 8 * PICTURE_KPS + 3.5
    runs = {
        "landmarks192": lambda: recipe.transform(kps=PICTURE_KPS).warp(image),
        "arcface112": lambda: CropTransform.from_kps5(PICTURE_KPS, template, 112).warp(image),
        "landmarks192_of_4096px": lambda: recipe.transform(kps=kps).warp(large),
    }
    interleaved(("crop",), lambda crop: Variant(runs[crop]))


@pytest.mark.parametrize("form", ["eager", "graph"])
@pytest.mark.parametrize("batch", [1, 8], ids="batch{}".format)
def test_pixel_input(interleaved, form, batch):
    """uint8 pixels to the network's input."""
    module = PixelInput(info("lotr_m"), create("lotr_m")).eval()
    crops = np.random.default_rng(0).integers(0, 256, (batch, 192, 192, 3), np.uint8)
    pixels = torch.from_numpy(crops)

    def make(form):
        if form == "graph":
            session = session_of(module, pixels)
            return Variant(lambda: session.run(None, {"x0": crops}))
        return Variant(torch.inference_mode()(lambda: module(pixels)))

    interleaved(("form",), make)
