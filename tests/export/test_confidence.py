"""Networks with confidence: scores and presence in the graph, mirrored and rounded."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from facelm_export import export
from facelm_models.heatmaps import decode
from facelm_models.weights import save
from facelm_sdk import Landmarker
from facelm_sdk import markup as markups
from tests.export.conftest import CARD, disturbed
from tests.tolerances import PIXELS

PROBABILITY = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.3}
"""Mean differences allowed of an untrained network, whose small logits are stretched."""

SMALL = {"lotr_m": {"layers": 1}, "pyramid_m": {"dim": 32}}
JUMPS = {"lotr_m": 1, "pyramid_m": 91}
"""Pixels: an untrained heatmap may have another peak once rounded, at most the crop's diagonal away."""


@pytest.fixture(scope="module", params=SMALL)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name, crops):
    """One whose logits on the crops have mean 0 and spread 1, so that no probability is near 0 or 1."""
    made = disturbed(name, size=64, confidence=True, **SMALL[name])
    with torch.no_grad():
        logits = [part.logit() for part in expected(made, crops, tensors=True)[1:]]
        for layer, values in zip((made.confidence.scores, made.confidence.presence), logits, strict=True):
            layer.weight.div_(values.std())
            layer.bias.sub_(values.mean()).div_(values.std())
    return made


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("confident") / "weights.safetensors"
    save(path, network, {**CARD, "markup": "ibug68"})
    return path


@pytest.fixture(scope="module")
def crops():
    coarse = torch.rand(6, 3, 5, 5, generator=torch.manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)
    return (255 * smooth).byte().permute(0, 2, 3, 1).contiguous().numpy()


def expected(network, crops, *, tensors=False):
    """Points, scores and presence by PyTorch."""
    pixels = torch.from_numpy(crops).flip(-1).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    with torch.no_grad():
        output, features = network.forward_features((pixels - mean) / std)
        logits, presence = network.confidence(*features)
    points = output if output.ndim == 3 else decode(output, "structured")[0]
    found = points * 64 - 0.5, logits.double().sigmoid(), presence.double().sigmoid()
    return found if tensors else tuple(part.numpy() for part in found)


@pytest.mark.parametrize("precision", PROBABILITY)
def test_scores_and_presence_are_outputs_in_every_precision(name, network, weights, crops, tmp_path, precision):
    out = tmp_path / "m.onnx"
    done = export(name, precision=precision, weights=weights, out=out, latency=False, atol=JUMPS[name])
    names = [value.name for value in onnx.load(done.path).graph.output]
    assert names == ["landmarks", "scores", "presence"] == list(done.spec.tensors.outputs)
    assert done.spec.has_scores and done.spec.has_presence
    _, scores, presence = expected(network, crops)
    found = Landmarker(done.path).run(crops)
    assert np.ptp(scores) > 0.1 and np.ptp(presence) > 0.01
    assert np.abs(found.scores - scores).mean() < PROBABILITY[precision]
    assert np.abs(found.presence - presence).mean() < PROBABILITY[precision]
    if precision != "int8":  # which is calibrated on portraits, and these crops are noise
        assert np.corrcoef(found.scores.ravel(), scores.ravel())[0, 1] > 0.8


def test_flip_averaging_in_the_graph_is_that_of_the_runtime(name, network, weights, crops, tmp_path):
    graph = export(name, flip=True, weights=weights, out=tmp_path / "flip.onnx", latency=False)
    plain = export(name, weights=weights, out=tmp_path / "plain.onnx", latency=False)
    inside, here = Landmarker(graph.path).run(crops), Landmarker(plain.path, flip=True).run(crops)
    for one, other in zip(inside, here, strict=True):
        np.testing.assert_allclose(one, other, atol=PIXELS["fp32"])
    straight, mirrored = expected(network, crops), expected(network, np.ascontiguousarray(crops[:, :, ::-1]))
    order = list(markups.get("ibug68").flip)
    np.testing.assert_allclose(inside.scores, (straight[1] + mirrored[1][:, order]) / 2, atol=1e-4)
    np.testing.assert_allclose(inside.presence, (straight[2] + mirrored[2]) / 2, atol=1e-4)
