"""Every architecture becomes one file of the same contract, with its decoding inside and its training branches gone."""

from __future__ import annotations

import onnx
import pytest
import torch

from facelm_export import export
from facelm_models import create, info, list_models
from facelm_models.weights import save
from facelm_sdk import Landmarker
from facelm_sdk import markup as markups
from tests.tolerances import PIXELS

from .conftest import CARD, disturbed

# Small forms of each architecture; the file of their weights says which options they have.
SMALL = {
    "lotr_m_plus": {"size": 64},
    "slpt_resnet34": {"size": 64, "layers": 2, "dim": 64},
    "mtld_r18": {"size": 64},
    "hourglass4": {"size": 64, "stacks": 1, "dim": 32},
    "fan2": {"size": 64, "stacks": 1, "dim": 32},
    "hrnet18": {"size": 64, "modules": (1, 1, 1)},
}


def test_every_architecture_is_tested():
    builds = {info(name).build for name in list_models("landmarks")}
    assert {info(name).build for name in SMALL} == builds


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The exported small form of a network, and where it lies."""
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            network = disturbed(name, **SMALL[name])
            for key, buffer in network.named_buffers():
                if key in ("mean_face", "mean_shape"):
                    buffer.uniform_(0.2, 0.8)
            save(folder / "weights.safetensors", network, {**CARD, "markup": "ibug68"})
            made[name] = export(name, weights=folder / "weights.safetensors", out=folder / f"{name}.onnx")
        return made[name]

    return make


@pytest.mark.parametrize("name", SMALL)
def test_one_contract_for_every_architecture(small, name):
    done = small(name)
    spec = done.spec
    assert spec.parity["max_px"] < PIXELS["fp32"]
    assert spec.crop.size == 64 and spec.num_landmarks == 68
    graph = onnx.load(done.path).graph
    assert [value.name for value in graph.input] == ["crops"]
    heatmaps = info(name).decoding in ("argmax", "local_soft_argmax")
    assert [value.name for value in graph.output] == ["landmarks", *(["scores"] if heatmaps else [])]
    assert spec.has_scores == heatmaps


@pytest.mark.parametrize("name", ["slpt_resnet34", "fan2"])
def test_the_file_runs_in_the_runtime_alone_and_mirrored(small, name):
    torch.manual_seed(0)
    crops = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8).numpy()
    landmarker = Landmarker(small(name).path)
    points, scores = landmarker.run(crops)
    assert points.shape == (3, 68, 2) and (scores is not None) == (name == "fan2")
    averaged = Landmarker(small(name).path, flip=True)
    mirrored = markups.flip_points(averaged(crops[:, :, ::-1].copy()), 64, "ibug68")
    assert abs(averaged(crops) - mirrored).max() < PIXELS["fp32"]


def operators(done):
    return [node.op_type for node in onnx.load(done.path).graph.node]


def test_patches_are_cropped_without_gridsample(small):
    assert "GridSample" not in operators(small("slpt_resnet34"))


def test_training_only_branches_are_gone(small):
    """Of MTLD's convolutions those of the ResNet-18 and the three to D are left, and nothing that enlarges maps."""
    found = operators(small("mtld_r18"))
    assert found.count("Conv") == 20 + 3
    assert "Resize" not in found
    branch = {tuple(p.shape) for p in create("mtld_r18", **SMALL["mtld_r18"]).heatmaps.parameters() if p.ndim == 4}
    assert (68, 128, 1, 1) in branch
    assert (68, 128, 1, 1) not in {tuple(t.dims) for t in onnx.load(small("mtld_r18").path).graph.initializer}


def test_a_decoder_can_be_chosen(small, tmp_path):
    weights = small("fan2").path.parent / "weights.safetensors"
    other = export("fan2", weights=weights, decoding="argmax", out=tmp_path)
    assert "Softmax" in operators(small("fan2")) and "Softmax" not in operators(other)
