"""SLPT: sizes against the paper, patches and relation layers against plain formulas, the official key table."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from facelm_models import create, info
from facelm_models.official import get
from facelm_models.slpt import SLPT, Attention, InherentRelationLayer, PatchCrop, PatchEmbedding, SLPTConfig
from facelm_models.weights import WeightsError, load
from tests.tolerances import PAPER, REWRITE

TINY = SLPTConfig(num_landmarks=5, size=64, dim=32, heads=4, layers=2, feedforward=48)


def without_memory(name, **options):
    with torch.device("meta"):
        return create(name, **options).eval()


def tiny(**options):
    """A small network with a plain convolution for its backbone."""
    torch.manual_seed(0)
    model = SLPT(SLPTConfig(**{**vars(TINY), **options})).eval()
    model.features = nn.Conv2d(3, model.config.dim, 4, 4)
    nn.init.uniform_(model.mean_shape, 0.1, 0.9)
    return model


@pytest.mark.parametrize(
    ("name", "landmarks", "millions", "billions"),
    [
        ("slpt_hrnet18", 98, 13.19, 6.12),
        ("slpt_hrnet18", 68, 13.18, 5.17),
        ("slpt_hrnet18", 29, 13.16, 3.99),
        ("slpt_hrnet18_12l", 98, 19.515, 8.109),  # of the authors' code
    ],
)
def test_the_papers_sizes(name, landmarks, millions, billions):
    model = create(name, num_landmarks=landmarks).eval().requires_grad_(False)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=PAPER)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 256, 256))
    assert counter.get_total_flops() / 2e9 == pytest.approx(billions, rel=PAPER)


def test_resnet34_size():
    model = without_memory("slpt_resnet34", num_landmarks=98)
    assert sum(p.numel() for p in model.parameters()) == 31_115_586


def test_points_are_fractions_of_pixels():
    assert {info(name).offset for name in ("slpt_hrnet18", "slpt_hrnet18_12l", "slpt_resnet34")} == {0.0}


def ramps(height, width):
    """A map (1, 2, h, w) whose channels are the column and the row of each cell."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows])[None].float()


def test_patch_samples_run_row_by_row_from_corner_to_corner():
    crop = PatchCrop(3)
    corner, extent = torch.tensor([[[0.25, 0.5], [0.0, 0.0]]]), torch.tensor([[[0.5, 0.25], [1.0, 1.0]]])
    patches = crop(ramps(5, 9), corner, extent)
    assert patches.shape == (1, 2, 9, 2)
    columns, rows = patches[0, 0].view(3, 3, 2).unbind(-1)
    torch.testing.assert_close(columns, torch.tensor([[2.0, 4.0, 6.0]] * 3))
    torch.testing.assert_close(rows, torch.tensor([[2.0], [2.5], [3.0]]).expand(3, 3))
    torch.testing.assert_close(patches[0, 1, [0, 2, 6, 8]], torch.tensor([[0.0, 0], [8, 0], [0, 4], [8, 4]]))


def test_patch_samples_are_bilinear():
    values = torch.tensor([[1.0, 2.0], [4.0, 8.0]])[None, None]
    at = torch.tensor([[[0.25, 0.75]]])
    (sample,) = PatchCrop(1)(values, at, torch.zeros_like(at)).flatten()
    assert sample == pytest.approx(0.25 * (0.75 * 1 + 0.25 * 2) + 0.75 * (0.75 * 4 + 0.25 * 8))


@torch.no_grad()
def test_patches_halve_and_stop_at_the_maps_end():
    model = tiny()
    model.mean_shape[:2] = torch.tensor([[0.5, 0.5], [0.05, 0.98]])
    seen = []
    model.crop.register_forward_pre_hook(lambda _, args: seen.append([a.clone() for a in args[1:]]))
    found = model.intermediate(torch.randn(1, 3, 64, 64))
    centres = [model.mean_shape[None], *found[:, :2, -1].unbind(1)]
    for (corner, extent), centre, side in zip(seen, centres, (0.25, 0.125, 0.0625), strict=True):
        torch.testing.assert_close(corner, (centre - side / 2).clamp(0, 1))
        torch.testing.assert_close(corner + extent, (centre + side / 2).clamp(0, 1))
    torch.testing.assert_close(seen[0][1][0, :2], torch.tensor([[0.25, 0.25], [0.175, 0.145]]))


@torch.no_grad()
def test_offsets_count_from_the_patchs_corner():
    model = tiny(layers=1, stages=1)
    model.mean_shape[0] = torch.tensor([0.5, 0.0])
    model.head[-1].weight.zero_()
    model.head[-1].bias.copy_(torch.tensor([0.0, 1.0]))
    found = model(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(found[0, 0], torch.tensor([0.375, 0.125]))  # of a patch cut in half: not -0.125 + 0.25


def test_patches_are_fixed_while_a_stage_learns():
    model = tiny().train()
    needed = []
    model.crop.register_forward_pre_hook(lambda _, args: needed.append([a.requires_grad for a in args]))
    model.intermediate(torch.randn(2, 3, 64, 64)).sum().backward()
    assert needed == [[True, False, False]] * 3


def test_embedding_is_a_convolution_over_the_whole_patch():
    torch.manual_seed(0)
    embed = PatchEmbedding(6, 3)
    nn.init.normal_(embed.weight)
    patches = torch.randn(2, 4, 9, 6)
    as_maps = patches.view(8, 3, 3, 6).permute(0, 3, 1, 2)
    expected = nn.functional.conv2d(as_maps, embed.weight).view(2, 4, 6)
    torch.testing.assert_close(embed(patches), expected, **REWRITE)


ATTENTION = {"in_proj_weight": "project.weight", "in_proj_bias": "project.bias"}
ATTENTION |= {"out_proj.weight": "out.weight", "out_proj.bias": "out.bias"}


def test_attention_is_pytorchs():
    torch.manual_seed(0)
    theirs, ours = nn.MultiheadAttention(32, 4, batch_first=True), Attention(32, 4, 0.0)
    nn.init.normal_(theirs.in_proj_bias)
    ours.load_state_dict({ATTENTION[key]: value for key, value in theirs.state_dict().items()})
    query, key, value = torch.randn(3, 2, 7, 32)
    torch.testing.assert_close(ours(query, key, value), theirs(query, key, value)[0], **REWRITE)


def test_relation_layer_without_positions_is_a_pre_norm_decoder_layer():
    torch.manual_seed(0)
    theirs = nn.TransformerDecoderLayer(32, 4, 48, batch_first=True, norm_first=True).eval()
    ours = InherentRelationLayer(TINY).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    names = {f"self_attn.{k}": f"self_attention.{v}" for k, v in ATTENTION.items()}
    names |= {f"multihead_attn.{k}": f"cross_attention.{v}" for k, v in ATTENTION.items()}
    for kind in ("weight", "bias"):
        names |= {f"linear1.{kind}": f"mlp.0.{kind}", f"linear2.{kind}": f"mlp.3.{kind}"}
    ours.load_state_dict({names.get(key, key): value for key, value in theirs.state_dict().items()})
    x, patches = torch.randn(2, 2, 5, 32)
    actual = ours(x, torch.zeros(1, 5, 32), patches, patches)
    torch.testing.assert_close(actual, theirs(x, patches), **REWRITE)


@torch.no_grad()
def test_forward_is_the_last_layer_of_the_last_stage():
    model = tiny()
    crops = torch.randn(3, 3, 64, 64)
    found = model.intermediate(crops)
    assert found.shape == (3, 3, 2, 5, 2)
    points = model(crops)
    torch.testing.assert_close(points, found[:, -1, -1])
    torch.testing.assert_close(torch.cat([model(crop[None]) for crop in crops]), points, **REWRITE)
    assert points.std(0).max() > 1e-4, "the points do not depend on the picture"


@torch.no_grad()
def test_starts_near_the_mean_face():
    model = tiny()
    assert (model(torch.randn(2, 3, 64, 64)) - model.mean_shape).abs().max() < 0.25
    assert torch.equal(SLPT(TINY).mean_shape, torch.full((5, 2), 0.5))


@pytest.mark.parametrize("backbone", ["hrnet18", "resnet34"])
def test_everything_learns(backbone):
    model = SLPT(SLPTConfig(num_landmarks=5, size=64, layers=2, backbone=backbone))
    model.intermediate(torch.randn(2, 3, 64, 64)).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # T is zero before the first layer, so that its self-attention has nothing to weigh until biases have moved
    assert all(name.startswith("relations.0.") for name in still) and len(still) <= 4


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="multiple of 32"):
        SLPT(SLPTConfig(size=100))
    with pytest.raises(ValueError, match="hrnet18, resnet34"):
        SLPT(SLPTConfig(backbone="vgg"))


OFFICIAL = {
    "feature_extractor.weight": (256, 256, 7, 7),
    "Transformer.structure_encoding": (1, 98, 256),
    "Transformer.landmark_query": (1, 98, 256),
    "Transformer.Transformer_block.layers.5.self_attn.in_proj_weight": (768, 256),
    "Transformer.Transformer_block.layers.0.multihead_attn.in_proj_bias": (768,),
    "Transformer.Transformer_block.layers.3.multihead_attn.out_proj.weight": (256, 256),
    "Transformer.Transformer_block.layers.2.linear1.weight": (1024, 256),
    "Transformer.Transformer_block.layers.2.linear2.weight": (256, 1024),
    "Transformer.Transformer_block.layers.4.norm3.bias": (256,),
    "Transformer.Transformer_block.norm.weight": (256,),
    "out_layer.weight": (2, 256),
    "backbone.conv1.weight": (64, 3, 3, 3),
    "backbone.stage4.0.branches.3.3.bn2.running_var": (144,),
    "backbone.head.3.weight": (256, 270, 1, 1),
}


def test_the_official_table_is_complete():
    model = without_memory("slpt_hrnet18", num_landmarks=98)
    table, own = get("slpt").keys(model), model.state_dict()
    assert sorted([*table.values(), "mean_shape"]) == sorted(own)
    for key, shape in OFFICIAL.items():
        assert own[table[key]].shape == shape, key


@torch.no_grad()
def test_an_official_checkpoint_loads():
    model = SLPT(SLPTConfig(num_landmarks=5, size=64, layers=1))
    table, own = get("slpt").keys(model), model.state_dict()
    theirs = {key: torch.rand_like(own[ours].float()) for key, ours in table.items()}
    theirs["feature_norm.weight"] = theirs["feature_norm.bias"] = torch.ones(256)  # there, and never read
    face = torch.rand(5, 2)
    load(model, {f"module.{key}": value for key, value in {**theirs, "mean_shape": face}.items()}, "slpt")
    assert torch.equal(model.mean_shape, face)
    weight = theirs["Transformer.Transformer_block.layers.0.multihead_attn.in_proj_weight"]
    assert torch.equal(model.relations[0].cross_attention.project.weight, weight)
    del theirs["out_layer.bias"]
    with pytest.raises(WeightsError, match=r"missing: out_layer\.bias"):
        load(model, theirs, "slpt")
    with pytest.raises(WeightsError, match="backbone='hrnet18'"):
        load(SLPT(SLPTConfig(backbone="resnet34", num_landmarks=5, layers=1)), theirs, "slpt")


@torch.no_grad()
def test_stage_points_are_the_last_layers():
    model, crops = tiny(stages=2), torch.randn(2, 3, 64, 64)
    found = model.stage_points(crops)
    assert found.shape == (2, 2, 5, 2)
    assert torch.equal(found, model.intermediate(crops)[:, :, -1]) and torch.equal(found[:, -1], model(crops))


SWITCHES = [
    {"self_attention": False},
    {"cross_attention": False},
    {"self_attention": False, "cross_attention": False},
    {"structure": False},
    {"stages": 1},
]


@pytest.mark.parametrize("options", SWITCHES)
def test_switches_take_parts_away(options):
    """Of tables 5 to 7."""
    model, whole = tiny(**options), tiny()
    gone = {key for key in whole.state_dict() if key not in model.state_dict()}
    assert all(key in whole.state_dict() for key in model.state_dict())
    cross = not options.get("cross_attention", True)
    assert ("structure" in gone) == (cross or not options.get("structure", True))
    assert any(".self_attention." in key for key in gone) == (not options.get("self_attention", True))
    assert any(".cross_attention." in key for key in gone) == cross
    crops = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        points = model(crops)
    assert points.shape == (3, 5, 2) and points.std(0).max() > 1e-5, "the points do not depend on the picture"


@torch.no_grad()
def test_without_attention_every_landmark_is_found_by_its_own_patch():
    """Model 1 of table 6: moving one landmark's patch moves no other landmark."""
    model, crops = tiny(self_attention=False, cross_attention=False, stages=1), torch.randn(1, 3, 64, 64)
    before = model(crops)
    model.mean_shape[2] += 0.05
    moved = (model(crops) - before).abs().amax(-1)[0] > 0
    assert moved.tolist() == [False, False, True, False, False]
    model = tiny(stages=1)
    before = model(crops)
    model.mean_shape[2] += 0.05
    assert ((model(crops) - before).abs().amax(-1)[0] > 0).all()


def test_a_stage_and_a_layer_at_least():
    for options in ({"stages": 0}, {"layers": 0}):
        with pytest.raises(ValueError, match="at least one stage of one layer"):
            tiny(**options)
