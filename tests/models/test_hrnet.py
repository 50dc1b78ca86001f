"""HRNet-W18: sizes, resolutions and exchanges, and the official key table."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from facelm_models import create, info
from facelm_models.backbones.hrnet import HighResolutionModule, HRNetHead, HRNetW18, upsampled
from facelm_models.hrnet import HRNet, HRNetConfig
from facelm_models.official import get
from tests.tolerances import PAPER, REWRITE


def without_memory(build, *args, **options):
    with torch.device("meta"):
        return build(*args, **options).eval()


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_the_authors_sizes():
    model = create("hrnet18", num_landmarks=98).eval().requires_grad_(False)
    assert parameters(model) / 1e6 == pytest.approx(9.663, rel=1e-3)
    assert parameters(model) / 1e6 == pytest.approx(9.66, rel=PAPER)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 256, 256))
    assert counter.get_total_flops() / 2e9 == pytest.approx(4.694, rel=1e-3)


def test_modules_per_stage():
    assert parameters(without_memory(HRNetW18)) == 9_562_260
    assert parameters(without_memory(HRNetW18, (1, 1, 1))) == 3_467_676


def test_maps_of_four_resolutions():
    maps = without_memory(HRNetW18, (1, 1, 1))(torch.zeros(2, 3, 64, 96, device="meta"))
    assert [tuple(x.shape) for x in maps] == [(2, 18, 16, 24), (2, 36, 8, 12), (2, 72, 4, 6), (2, 144, 2, 3)]


@torch.no_grad()
def test_every_resolution_hears_of_every_other():
    torch.manual_seed(0)
    module = HighResolutionModule((4, 6, 8)).eval()
    maps = [torch.rand(1, 4, 16, 16), torch.rand(1, 6, 8, 8), torch.rand(1, 8, 4, 4)]
    before = module(list(maps))
    assert [x.shape for x in before] == [x.shape for x in maps]
    for i, changed in enumerate(maps):
        after = module([changed + 1 if j == i else x for j, x in enumerate(maps)])
        assert all((a - b).abs().max() > 1e-4 for a, b in zip(after, before, strict=True))


@torch.no_grad()
def test_an_exchange_is_the_sum_over_resolutions():
    torch.manual_seed(0)
    module = HighResolutionModule((4, 6)).eval()
    high, low = torch.rand(1, 4, 8, 8), torch.rand(1, 6, 4, 4)
    high_after, low_after = module([high, low])
    a, b = module.branches[0](high), module.branches[1](low)
    conv, norm = module.fuse[0][1][:2]
    wide = nn.functional.interpolate(norm(conv(b)), (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(high_after, (a + wide).relu(), **REWRITE)
    conv, norm = module.fuse[1][0][0]
    assert conv.stride == (2, 2)
    torch.testing.assert_close(low_after, (norm(conv(a)) + b).relu(), **REWRITE)


def test_upsampling_keeps_cell_edges():
    low = torch.tensor([[0.0, 4.0]]).view(1, 1, 1, 2)
    _, wide = upsampled([torch.zeros(1, 1, 2, 4), low])
    assert wide[0, 0].tolist() == [[0.0, 1.0, 3.0, 4.0]] * 2


@torch.no_grad()
def test_head_reads_all_maps():
    torch.manual_seed(0)
    head = HRNetHead(7).eval()
    maps = [torch.rand(1, width, 16 >> i, 16 >> i) for i, width in enumerate(HRNetW18.channels)]
    before = head(maps)
    assert before.shape == (1, 7, 16, 16)
    for i in range(4):
        assert not torch.equal(head([x + (j == i) for j, x in enumerate(maps)]), before)


@torch.no_grad()
def test_heatmaps():
    torch.manual_seed(0)
    model = create("hrnet18", num_landmarks=19, size=64, modules=(1, 1, 1))
    crops = torch.randn(2, 3, 64, 64)
    assert model(crops).abs().max() < 0.5, "training starts far from the empty heatmap"
    heatmaps = model.eval()(crops)
    assert heatmaps.shape == (2, 19, 16, 16)
    assert heatmaps.std(0).max() > 0, "the heatmaps do not depend on the picture"
    torch.testing.assert_close(torch.cat([model(crop[None]) for crop in crops]), heatmaps, **REWRITE)
    (trained,) = model.intermediate(crops)
    torch.testing.assert_close(trained, heatmaps)
    assert info("hrnet18").decoding == "argmax"


def test_everything_learns():
    model = HRNet(HRNetConfig(num_landmarks=5, size=64, modules=(1, 1, 1)))
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_wrong_size_is_named():
    with pytest.raises(ValueError, match="multiple of 32"):
        HRNet(HRNetConfig(size=200))


OFFICIAL = {
    "conv1.weight": (64, 3, 3, 3),
    "bn2.running_mean": (64,),
    "layer1.0.downsample.0.weight": (256, 64, 1, 1),
    "layer1.3.conv3.weight": (256, 64, 1, 1),
    "transition1.0.0.weight": (18, 256, 3, 3),
    "transition1.1.0.0.weight": (36, 256, 3, 3),
    "transition3.3.0.1.bias": (144,),
    "stage2.0.fuse_layers.0.1.0.weight": (18, 36, 1, 1),
    "stage3.3.branches.2.3.conv2.weight": (72, 72, 3, 3),
    "stage4.2.fuse_layers.3.0.0.0.weight": (18, 18, 3, 3),
    "stage4.2.fuse_layers.3.0.2.0.weight": (144, 18, 3, 3),
    "stage4.2.fuse_layers.3.0.2.1.running_var": (144,),
    "head.0.bias": (270,),
    "head.1.weight": (270,),
    "head.3.weight": (98, 270, 1, 1),
}


def test_the_official_table_is_complete():
    model = without_memory(create, "hrnet18", num_landmarks=98)
    source = get("hrnet")
    table, own = source.keys(model), model.state_dict()
    assert sorted(table.values()) == sorted(own)
    for key, shape in OFFICIAL.items():
        assert own[table[key]].shape == shape, key
    assert source.crop == {"kind": "box", "box": "landmarks", "side": "max", "scale": 1.25}
    with pytest.raises(TypeError, match="fit an HRNet"):
        source.keys(nn.Identity())
