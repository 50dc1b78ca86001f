"""ImageNet backbones: checkpoints in torchvision's key names load strictly."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from facelm_models import create, load_backbone
from facelm_models.backbones.mobilenet import MobileNetV2
from facelm_models.backbones.resnet import ResNet
from facelm_models.official import torchvision
from facelm_models.weights import WeightsError

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
MOBILENET_V2_BLOCKS = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))


def conv(name, inputs, outputs, kernel, groups=1):
    return {f"{name}.weight": (outputs, inputs // groups, kernel, kernel)}


def norm(name, channels):
    entries = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{entry}": (channels,) for entry in entries} | {f"{name}.num_batches_tracked": ()}


def mobilenet_v2_shapes():
    """torchvision's mobilenet_v2 from table 2 of the paper: key -> shape, in its order."""
    shapes = conv("features.0.0", 3, 32, 3) | norm("features.0.1", 32)
    inputs, i = 32, 1
    for expansion, outputs, repeats in MOBILENET_V2_BLOCKS:
        for _ in range(repeats):
            hidden, block, last = inputs * expansion, f"features.{i}.conv", 0
            if expansion > 1:
                shapes |= conv(f"{block}.0.0", inputs, hidden, 1) | norm(f"{block}.0.1", hidden)
                last = 1
            shapes |= conv(f"{block}.{last}.0", hidden, hidden, 3, groups=hidden) | norm(f"{block}.{last}.1", hidden)
            shapes |= conv(f"{block}.{last + 1}", hidden, outputs, 1) | norm(f"{block}.{last + 2}", outputs)
            inputs, i = outputs, i + 1
    shapes |= conv(f"features.{i}.0", 320, 1280, 1) | norm(f"features.{i}.1", 1280)
    return shapes | {"classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}


def resnet_shapes(depth):
    """torchvision's resnet18 to resnet101: key -> shape, in its order."""
    shapes = conv("conv1", 3, 64, 7) | norm("bn1", 64)
    expansion = 1 if depth < 50 else 4
    inputs = 64
    for stage, blocks in enumerate(BLOCKS[depth]):
        width = 64 * 2**stage
        outputs = width * expansion
        sizes = [(width, 3), (width, 3)] if depth < 50 else [(width, 1), (width, 3), (outputs, 1)]
        for i in range(blocks):
            block, channels = f"layer{stage + 1}.{i}", inputs
            for j, (to, kernel) in enumerate(sizes, 1):
                shapes |= conv(f"{block}.conv{j}", channels, to, kernel) | norm(f"{block}.bn{j}", to)
                channels = to
            if i == 0 and (stage > 0 or inputs != outputs):
                shapes |= conv(f"{block}.downsample.0", inputs, outputs, 1) | norm(f"{block}.downsample.1", outputs)
            inputs = outputs
    return shapes | {"fc.weight": (1000, inputs), "fc.bias": (1000,)}


def random_state(shapes):
    torch.manual_seed(1)
    return {key: torch.rand(shape) if shape else torch.tensor(7) for key, shape in shapes.items()}


CASES = {
    "mobilenet_v2": (MobileNetV2, mobilenet_v2_shapes()),
    **{f"resnet{depth}": (lambda depth=depth: ResNet(depth), resnet_shapes(depth)) for depth in BLOCKS},
}


@pytest.mark.parametrize("name", CASES)
def test_the_table_is_complete_in_order_and_of_equal_shapes(name):
    build, shapes = CASES[name]
    backbone = build()
    keys = torchvision.backbone_keys(backbone)
    own = backbone.state_dict()
    assert list(keys) == [key for key in shapes if not key.startswith(("classifier.", "fc."))]
    assert list(keys.values()) == list(own)
    assert all(own[ours].shape == torch.Size(shapes[theirs]) for theirs, ours in keys.items())
    if name == "mobilenet_v2":
        assert len(keys) == 312


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnet50"])
def test_a_checkpoint_fills_the_backbone(name, suffix, tmp_path):
    build, shapes = CASES[name]
    state = random_state(shapes)
    path = tmp_path / f"imagenet{suffix}"
    (torch.save if suffix == ".pth" else save_file)(state, path)
    backbone = build()
    assert load_backbone(backbone, path) is backbone
    own = backbone.state_dict()
    for theirs, ours in torchvision.backbone_keys(backbone).items():
        assert ours.endswith("num_batches_tracked") or torch.equal(own[ours], state[theirs]), theirs


def test_the_backbone_of_a_network():
    state = random_state(mobilenet_v2_shapes())
    network = create("lotr_m", size=32)
    load_backbone(network.backbone, state)
    assert torch.equal(network.backbone.layers[18][0].weight, state["features.18.0.weight"])


def test_counters_and_the_classifier_may_lack():
    """As in torchvision's files from before batch norms counted, and in those of features alone."""
    state = random_state(resnet_shapes(18))
    load_backbone(ResNet(18), {k: v for k, v in state.items() if not k.endswith("tracked") and "fc" not in k})


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_what_does_not_fit_is_named_as_torchvision_names_it(name):
    build, shapes = CASES[name]
    backbone, state = build(), random_state(shapes)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    first, last = [key for key in state if key.endswith("weight")][::4][:2]
    del state[first]
    state[last] = torch.zeros(3, 5)
    state["head.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        load_backbone(backbone, state)
    for line in (f"missing: {first}", "unknown: head.weight", f"shape of {last}: (3, 5), not"):
        assert line in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_another_network_or_another_classifier():
    with pytest.raises(WeightsError, match="fit a MobileNetV2 or a ResNet, not a Linear"):
        load_backbone(nn.Linear(1, 1), {})
    with pytest.raises(WeightsError, match=r"unknown: fc\.weight"):
        load_backbone(MobileNetV2(), random_state(mobilenet_v2_shapes()) | {"fc.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"missing: layer1\.0\.conv3\.weight"):
        load_backbone(ResNet(50), random_state(resnet_shapes(34)))


def test_a_file_with_code_in_it_is_refused(tmp_path):
    torch.save({"fc.weight": nn.Linear(1, 1)}, tmp_path / "module.pth")
    with pytest.raises(WeightsError, match="cannot be read safely"):
        load_backbone(ResNet(18), tmp_path / "module.pth")
    with pytest.raises(WeightsError, match="no weights file"):
        load_backbone(ResNet(18), tmp_path / "none.pth")
