"""Operations that stand in the graph: the readable reference, its export-safe twin, and the twin in onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from facelm_export.ops.decoding import decode
from facelm_export.ops.nms import nms_reference
from facelm_export.passes.patches import GatheredPatchCrop
from facelm_models import heatmaps
from facelm_models.slpt import PatchCrop
from facelm_sdk.boxes import merge

from .measure.graphs import Call, session_of
from .measure.interleaved import Variant

FORMS = ("reference", "twin", "graph")


def sides(reference: nn.Module, twin: nn.Module, *inputs: torch.Tensor):
    """Opens a form by its name."""

    def make(form):
        if form == "graph":
            session = session_of(twin, *inputs)
            feeds = {f"x{index}": value.numpy() for index, value in enumerate(inputs)}
            return Variant(lambda: session.run(None, feeds))
        module = (reference if form == "reference" else twin).eval()
        return Variant(torch.inference_mode()(lambda: module(*inputs)))

    return make


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 8], ids="batch{}".format)
@pytest.mark.parametrize("decoder", ["argmax", "local_soft_argmax", "expectation"])
def test_decoding(interleaved, decoder, batch, form):
    """68 heatmaps of 64x64 a crop."""
    maps = torch.from_numpy(np.random.default_rng(0).random((batch, 68, 64, 64), np.float32))
    reference, twin = (Call(function, decoder) for function in (heatmaps.decode, decode))
    interleaved(("form",), sides(reference, twin, maps))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 8], ids="batch{}".format)
def test_patch_crop(interleaved, batch, form):
    """SLPT's 98 patches of 7x7 from a 64x64 map of 256 channels."""
    torch.manual_seed(0)
    crop = PatchCrop(7)
    corner = 0.8 * torch.rand(batch, 98, 2)
    maps, size = torch.rand(batch, 256, 64, 64), torch.full((batch, 98, 2), 0.125)
    interleaved(("form",), sides(crop, GatheredPatchCrop(crop.samples), maps, corner, size))


@pytest.mark.parametrize("form", ["reference", "runtime"])
def test_suppression(interleaved, form):
    """500 overlapping boxes: the graph's readable reference, and what the runtime merges its passes with."""
    rng = np.random.default_rng(0)
    corners, scores = rng.uniform(0, 300, (500, 2)), rng.random(500).astype(np.float32)
    boxes = np.concatenate([corners, corners + rng.uniform(20, 120, (500, 2))], 1).astype(np.float32)
    tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
    runs = {
        "reference": lambda: nms_reference(*tensors, 0.4, 0.05),
        "runtime": lambda: merge(boxes, scores, max_iou=0.4, max_contained=0.8),
    }
    interleaved(("form",), lambda form: Variant(runs[form]))
