"""FAN, and its official key table."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from facelm_models import create, info
from facelm_models.backbones.hourglass import HierarchicalBlock
from facelm_models.heatmaps import decode
from facelm_models.official import get
from facelm_sdk.transform import CropRecipe
from tests.tolerances import REWRITE


def tiny(**options):
    torch.manual_seed(0)
    return create("fan2", **{"num_landmarks": 29, "size": 16, "dim": 16, "depth": 1, **options}).eval()


@pytest.mark.parametrize(
    ("name", "stacks", "parameters", "multiply_adds"), [("fan2", 2, 12_106_504, 13.92), ("fan4", 4, 23_820_176, 25.24)]
)
def test_size_is_the_public_codes(name, stacks, parameters, multiply_adds):
    with torch.device("meta"), torch.no_grad():
        model = create(name).eval()
        with FlopCounterMode(display=False) as counter:
            maps = model.intermediate(torch.zeros(1, 3, 256, 256))
    assert [m.shape for m in maps] == [(1, 68, 64, 64)] * stacks
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(multiply_adds, rel=1e-3)


@pytest.mark.parametrize(("name", "size", "dim"), [("fan2", 256, 256), ("fan2_s", 128, 128), ("fan4", 256, 256)])
def test_feeding_and_decoding(name, size, dim):
    model = info(name)
    assert (model.channels, model.mean, model.std) == ("rgb", (0.0,) * 3, (255.0,) * 3)
    assert (model.decoding, model.input_size) == ("local_soft_argmax", size)
    assert (model.config.size, model.config.dim) == (size, dim)


@pytest.mark.parametrize("points", [5, 19, 29, 68, 98, 106])
@torch.no_grad()
def test_any_number_of_landmarks(points):
    model = tiny(num_landmarks=points, stacks=3)
    crops = torch.randn(2, 3, 16, 16)
    maps = model.intermediate(crops)
    assert [m.shape for m in maps] == [(2, points, 4, 4)] * 3
    torch.testing.assert_close(model(crops), maps[-1], rtol=0, atol=0)


@torch.no_grad()
def test_crops_do_not_depend_on_their_batch():
    model = tiny()
    crops = torch.randn(3, 3, 16, 16)
    together = model(crops)
    torch.testing.assert_close(torch.cat([model(crop[None]) for crop in crops]), together, **REWRITE)
    assert together.std(0).max() > 0


def test_every_parameter_learns_from_the_heatmaps():
    model = tiny().train()
    sum(m.square().mean() for m in model.intermediate(torch.randn(2, 3, 16, 16))).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@torch.no_grad()
def test_hierarchical_block_joins_half_and_two_quarters():
    block = HierarchicalBlock(8, 8).eval()
    block.conv3.weight.zero_()
    x = torch.randn(1, 8, 5, 5)
    added = block(x) - x
    assert added[:, 6:].abs().max() == 0, "the last quarter is the third convolution's"
    torch.testing.assert_close(added[:, :4], block.conv1(block.norm1(x).clamp(min=0)), **REWRITE)
    torch.testing.assert_close(added[:, 4:6], block.conv2(block.norm2(added[:, :4]).clamp(min=0)), **REWRITE)


@pytest.mark.parametrize("size", [32, 250])
def test_size_that_does_not_halve_is_refused(size):
    with pytest.raises(ValueError, match="multiple of 64"):
        create("fan4", size=size)


@pytest.mark.parametrize("stacks", [1, 2, 4])
def test_official_keys(stacks):
    with torch.device("meta"):
        model = create("fan2", stacks=stacks)
    keys = get("fan").keys(model)
    own = model.state_dict()
    assert sorted(keys.values()) == sorted(own)
    shape = {theirs: tuple(own[ours].shape) for theirs, ours in keys.items()}
    last = stacks - 1
    assert shape["conv1.weight"] == (64, 3, 7, 7)
    assert shape["conv4.downsample.2.weight"] == (256, 128, 1, 1)
    assert shape[f"l{last}.weight"] == (68, 256, 1, 1)
    assert shape[f"m{last}.b2_plus_1.conv3.weight"] == (64, 64, 3, 3)
    assert keys["m0.b3_3.bn2.running_mean"] == "stacks.0.hourglass.inner.up.norm2.running_mean"
    assert keys[f"bn_end{last}.weight"] == f"stacks.{last}.features.2.weight"
    assert {key for key in keys if key.startswith("al")} == {
        f"al{i}.{part}" for i in range(last) for part in ("weight", "bias")
    }


def test_official_crop_is_the_public_codes():
    """side = 200 * (w + h) / 195, centred 0.12 of the height above the box's centre."""
    crop = CropRecipe.from_dict({"size": 256, **get("fan").crop}).transform(box=(100, 200, 250, 380))
    side = 200 * (150 + 180) / 195
    assert crop.scale == pytest.approx(256 / side)
    assert crop.apply([[175, 290 - 0.12 * 180]])[0] == pytest.approx([127.5, 127.5])
    assert get("fan").decoding == "argmax"


def test_official_keys_of_another_network():
    with pytest.raises(TypeError, match="fit a FAN"):
        get("fan").keys(nn.Linear(1, 1))


@torch.no_grad()
def test_corrections_stand_behind_the_cells():
    torch.manual_seed(0)
    network = create("fan2", size=64, num_landmarks=5, dim=16, depth=2, correction=True).eval()
    plain = create("fan2", size=64, num_landmarks=5, dim=16, depth=2).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("correction")})
    crops = torch.randn(2, 3, 64, 64)
    first, last = network.intermediate(crops)
    assert first.shape == (2, 5, 16, 16) and last.shape == (2, 5, 16 * 16 + 2)
    torch.testing.assert_close(last[..., :-2].unflatten(2, (16, 16)), plain(crops))
    assert torch.equal(network(crops), last) and decode(last, "corrected_argmax")[0].shape == (2, 5, 2)
