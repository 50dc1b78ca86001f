"""Patch cropping: the readable reference against the gathers that take its place in the CPU's file."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from facelm_export.passes.half import to_half
from facelm_export.passes.patches import GatheredPatchCrop, swap_patch_crops
from facelm_models import info
from facelm_models.slpt import SLPT, PatchCrop, SLPTConfig
from tests.tolerances import PIXELS, REWRITE

CONFIG = SLPTConfig(num_landmarks=6, size=64, dim=32, heads=4, layers=2, feedforward=32, samples=5, stages=2)


def regions(points, side):
    corner = (points - side / 2).clamp(0, 1)
    return corner, (points + side / 2).clamp(0, 1) - corner


def both(features, corner, extent, samples=7):
    return GatheredPatchCrop(samples)(features, corner, extent), PatchCrop(samples)(features, corner, extent)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    height=st.integers(2, 12),
    width=st.integers(2, 12),
    samples=st.integers(1, 7),
    side=st.floats(0.01, 1.5),
)
def test_the_same_samples(seed, height, width, samples, side):
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, height, width, generator=random)
    points = torch.rand(2, 5, 2, generator=random) * 1.4 - 0.2  # some beyond the ends
    actual, expected = both(features, *regions(points, side), samples)
    assert actual.shape == (2, 5, samples**2, 3)
    torch.testing.assert_close(actual, expected, **REWRITE)


def test_the_same_samples_at_the_ends():
    features = torch.randn(1, 4, 6, 9, generator=torch.Generator().manual_seed(0))
    points = torch.cartesian_prod(torch.tensor([-0.3, 0.0, 0.001, 0.999, 1.0, 1.3]), torch.tensor([0.0, 0.5, 1.0]))[
        None
    ]
    for side in (0.25, 2.5):
        torch.testing.assert_close(*both(features, *regions(points, side)), **REWRITE)
    corners, _ = both(features, torch.zeros(1, 1, 2), torch.ones(1, 1, 2), samples=2)
    assert torch.equal(corners[0, 0].T, features[0, :, ::5, ::8].flatten(1))


def test_positions_keep_their_precision_in_fp16():
    features = torch.arange(64.0).expand(1, 1, 64, 64).half()  # the column, exact in fp16
    points = torch.rand(1, 50, 2, generator=torch.Generator().manual_seed(0))
    actual, expected = both(features, *regions(points, 1 / 16))
    assert actual.dtype == expected.dtype == torch.float16
    exact, _ = both(features.float(), *regions(points, 1 / 16))
    for patches in (actual, expected):  # half a step of fp16 at 63 is 1/64; its positions would err by more
        assert (patches.float() - exact).abs().max() < 1 / 16


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = SLPT(CONFIG).eval()
    model.features = nn.Sequential(nn.Conv2d(3, 32, 4, 4), nn.Tanh())
    nn.init.uniform_(model.mean_shape, -0.02, 1.02)
    nn.init.normal_(model.head[-1].weight, std=0.1)
    return model


@torch.no_grad()
def test_a_swapped_network_finds_the_same_points(network):
    crops = torch.randn(2, 3, 64, 64)
    before, keys = network(crops), set(network.state_dict())
    swapped = SLPT(CONFIG).eval()
    swapped.features = nn.Sequential(nn.Conv2d(3, 32, 4, 4), nn.Tanh())
    swapped.load_state_dict(network.state_dict())
    swap_patch_crops(swapped)
    assert isinstance(swapped.crop, GatheredPatchCrop) and isinstance(network.crop, PatchCrop)
    assert set(swapped.state_dict()) == keys
    torch.testing.assert_close(swapped(crops), before, **REWRITE)
    assert (before - network.mean_shape).abs().max() > 0.01


def test_swapping_reaches_into_modules_and_is_done_once():
    outer = nn.Sequential(nn.Sequential(PatchCrop(3)), PatchCrop(5))
    swap_patch_crops(outer)
    swap_patch_crops(outer)
    assert [type(m) for m in outer.modules() if not isinstance(m, nn.Sequential)] == [GatheredPatchCrop] * 2
    assert outer[1].steps.tolist() == PatchCrop(5).steps.tolist()


@torch.no_grad()
def test_half_precision_networks_keep_points_in_fp32():
    torch.manual_seed(0)
    model = SLPT(CONFIG).eval()
    model.features = nn.Conv2d(3, 32, 4, 4)
    crops = torch.randn(1, 3, 64, 64)
    expected = model(crops)
    to_half(model, info("slpt_hrnet18"))
    swap_patch_crops(model)
    assert model.crop.steps.dtype == torch.float32
    points = model(crops.half())
    assert points.dtype == torch.float32
    assert (points - expected).abs().max() * CONFIG.size < PIXELS["fp16"]


@pytest.fixture(scope="module")
def exported(network):
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model = SLPT(CONFIG).eval()
    model.features = nn.Sequential(nn.Conv2d(3, 32, 4, 4), nn.Tanh())
    model.load_state_dict(network.state_dict())
    swap_patch_crops(model)
    with torch.no_grad():
        program = torch.onnx.export(
            model,
            (torch.zeros(2, 3, 64, 64),),
            input_names=["crops"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            opset_version=18,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return program.model_proto


def test_the_graph(exported):
    kinds = [node.op_type for node in exported.graph.node]
    assert "GridSample" not in kinds and "Loop" not in kinds and "If" not in kinds
    # Of each stage the norms of its layers, but the first, which sees zeros alone, and that of its head.
    assert kinds.count("LayerNormalization") == CONFIG.stages * (3 * CONFIG.layers - 1 + 1)
    onnx.checker.check_model(exported)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_file_finds_the_same_points(network, exported, batch):
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    crops = np.random.default_rng(batch).standard_normal((batch, 3, 64, 64), dtype=np.float32)
    (actual,) = session.run(None, {"crops": crops})
    with torch.no_grad():
        expected = network(torch.from_numpy(crops)).numpy()
    assert actual.shape == (batch, 6, 2)
    assert np.abs(actual - expected).max() * CONFIG.size < PIXELS["fp32"]
