"""Every architecture becomes one file of the same contract, with its decoding inside and its training branches gone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from facelm_models import create, info, list_models, load
from facelm_models.registry import decoder
from facelm_sdk import Landmarker
from facelm_sdk import markup as markups
from tests.tolerances import PIXELS

from .conftest import SMALL

TRAINING_BRANCHES = {"mtld_r18"}
"""Small networks with parameters that only training uses: heatmaps beside the regression."""

SCORED = {"fan2", "hrnet18"}
"""Networks whose peaks are trained to a known height; the structured hourglass's are logits of any."""


def test_every_architecture_is_tested():
    builds = {info(name).build for name in list_models("landmarks")}
    assert {info(name).build for name in SMALL} == builds


@pytest.mark.parametrize("name", SMALL)
def test_one_contract_for_every_architecture(small, name):
    done = small(name)
    spec = done.spec
    assert spec.parity["max_px"] < PIXELS["fp32"]
    assert spec.crop.size == 64 and spec.num_landmarks == 68
    graph = onnx.load(done.path).graph
    assert [value.name for value in graph.input] == ["crops"]
    assert [value.name for value in graph.output] == ["landmarks", *(["scores"] if spec.has_scores else [])]
    assert spec.has_scores == decoder(info(name).decoding).has_scores == (name in SCORED)


@pytest.mark.parametrize("name", ["slpt_resnet34", "fan2"])
def test_the_file_runs_in_the_runtime_alone_and_mirrored(small, name):
    torch.manual_seed(0)
    crops = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8).numpy()
    landmarker = Landmarker(small(name).path)
    points, scores, presence = landmarker.run(crops)
    assert points.shape == (3, 68, 2) and (scores is not None) == (name == "fan2") and presence is None
    averaged = Landmarker(small(name).path, flip=True)
    mirrored = markups.flip_points(averaged(crops[:, :, ::-1].copy()), 64, "ibug68")
    assert abs(averaged(crops) - mirrored).max() < PIXELS["fp32"]


def operators(done):
    return [node.op_type for node in onnx.load(done.path).graph.node]


def test_patches_are_cropped_without_gridsample(small):
    assert "GridSample" not in operators(small("slpt_resnet34"))


def unused(network):
    """Names and values of the parameters that the landmarks do not depend on."""
    network(torch.randn(2, 3, 64, 64)).sum().backward()
    return {name: p.detach().numpy() for name, p in network.named_parameters() if p.grad is None}


@pytest.mark.parametrize("name", SMALL)
def test_training_only_branches_are_gone(small, name):
    """No weight of theirs is in the file, nor anything else that only training has."""
    network = load(create(name, **SMALL[name]), small(name).path.parent / "weights.safetensors").eval()
    training_only = unused(network)
    assert bool(training_only) == (name in TRAINING_BRANCHES)
    graph = onnx.load(small(name).path).graph
    kept = [numpy_helper.to_array(tensor).ravel() for tensor in graph.initializer]
    for key, value in training_only.items():
        same_size = [array for array in kept if array.size == value.size > 1]
        assert not any(np.array_equal(np.sort(array), np.sort(value.ravel())) for array in same_size), key
    assert not {"Dropout", "Identity"} & {node.op_type for node in graph.node}
    left = sum(array.size for array in kept)
    assert (
        left <= 1.05 * sum(p.numel() for p in network.parameters() if p.grad is not None) + 20_000
    )  # grids, constants


def test_convolutions_of_a_branch_are_gone(small):
    """Of MTLD's those of the ResNet-18 and the three to D are left, and nothing that enlarges maps."""
    found = operators(small("mtld_r18"))
    assert found.count("Conv") == 20 + 3
    assert "Resize" not in found
