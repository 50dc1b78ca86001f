"""The stacked hourglass with edge and point maps, and STAR's key table for it."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from facelm_models import create, info
from facelm_models.edges import CURVES
from facelm_models.hourglass import CoordConv
from facelm_models.official import get
from facelm_sdk import markup
from facelm_sdk.transform import CropRecipe
from tests.tolerances import REWRITE

MARKUPS = {19: "aflw19", 29: "cofw29", 68: "ibug68", 98: "wflw98", 106: "jd106"}


def tiny(**options):
    torch.manual_seed(0)
    return create(
        "hourglass4", **{"num_landmarks": 29, "size": 16, "stacks": 2, "dim": 16, "depth": 1, **options}
    ).eval()


def test_size_is_the_papers():
    """The paper's 17.54 G hold 5 operations a batch-normed value and 4 an instance-normed one beside the convolutions,
    whose 17.35 G its own public code shows too."""
    normed = []
    with torch.device("meta"), torch.no_grad():
        model = create("hourglass4", num_landmarks=98).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(lambda _, __, out: normed.append(5 * out.numel()))
        with FlopCounterMode(display=False) as counter:
            out = model(torch.zeros(1, 3, 256, 256))
    assert out.shape == (1, 98, 64, 64)
    assert sum(p.numel() for p in model.parameters()) == 13_476_468  # 13.48 M
    multiply_adds = counter.get_total_flops() / 2
    assert multiply_adds / 1e9 == pytest.approx(17.35, rel=1e-3)
    assert (multiply_adds + sum(normed) + 4 * 4 * out.numel()) / 1e9 == pytest.approx(17.54, rel=1e-3)


def test_feeding_and_decoding():
    model = info("hourglass4")
    assert (model.channels, model.mean, model.std) == ("bgr", (127.5,) * 3, (127.5,) * 3)
    assert (model.decoding, model.input_size, model.config.stacks) == ("structured", 256, 4)
    assert get("star").decoding == "expectation"


@pytest.mark.parametrize(("points", "edges"), [(5, 1), (19, 6), (29, 7), (68, 9), (98, 9), (106, 9)])
@torch.no_grad()
def test_any_number_of_landmarks(points, edges):
    maps = tiny(num_landmarks=points).intermediate(torch.randn(2, 3, 16, 16))
    assert len(maps) == 2
    for stack in maps:
        assert stack.logits.shape == stack.heatmaps.shape == stack.points.shape == (2, points, 4, 4)
        assert stack.edges.shape == (2, edges, 4, 4)


@pytest.mark.parametrize("points", [19, 68, 98, 106])
def test_curves_are_the_markups_polylines(points):
    assert CURVES[points] == markup.get(MARKUPS[points]).polylines


def test_curves_of_29_points():
    """STAR joins the lips by lip, not by contour, and takes the nose tip in."""
    own = markup.get("cofw29")
    assert CURVES[29][:4] == own.polylines[:4]
    groups = {name: set(own.groups[name]) for name in ("nose", "mouth")}
    assert set(CURVES[29][4]) == groups["nose"]
    assert set(CURVES[29][5]) | set(CURVES[29][6]) == groups["mouth"]


@pytest.mark.parametrize("points", MARKUPS)
def test_curves_stay_within_a_part_of_the_face(points):
    parts = markup.get(MARKUPS[points]).groups.values()
    for curve in CURVES[points]:
        assert any(set(curve) <= set(part) for part in parts)


def test_edge_buffers():
    model = tiny(num_landmarks=98)
    jaw = model.edge_weight[:, 0, 0, 0]
    assert jaw.tolist() == [1.0] * 33 + [0.0] * 65
    assert model.edge_bias.nonzero().flatten().tolist() == [96, 97]  # the pupils
    corner = tiny(num_landmarks=29).edge_weight[22, :, 0, 0]
    assert corner.tolist() == [0, 0, 0, 0, 0, 1, 1]
    own = tiny(num_landmarks=4, curves=((0, 1), (1, 2)))
    assert own.edge_weight[..., 0, 0].tolist() == [[1, 0], [1, 1], [0, 1], [0, 0]]
    assert own.edge_bias.tolist() == [0, 0, 0, 1]


@torch.no_grad()
def test_heatmaps_are_normalised_masked_and_not_negative():
    model = tiny()
    crops = torch.randn(2, 3, 16, 16)
    maps = model.intermediate(crops)
    torch.testing.assert_close(model(crops), maps[-1].heatmaps, rtol=0, atol=0)
    for stack in maps:
        mean, variance = stack.logits.mean((2, 3), keepdim=True), stack.logits.var((2, 3), keepdim=True, correction=0)
        on_edges = torch.zeros(2, 29, 4, 4)
        on_edges[:, [16, 17, 28]] = 1  # pupils and chin
        for edge, curve in enumerate(CURVES[29]):
            on_edges[:, list(set(curve))] += stack.edges[:, [edge]]
        expected = (stack.logits - mean) / (variance + 1e-5).sqrt() * on_edges * stack.points
        torch.testing.assert_close(stack.scores, expected, **REWRITE)
        torch.testing.assert_close(stack.heatmaps, stack.scores.clamp(min=0), rtol=0, atol=0)
        assert stack.heatmaps.amax((2, 3)).min() > 0


@torch.no_grad()
def test_crops_do_not_depend_on_their_batch():
    model = tiny()
    crops = torch.randn(3, 3, 16, 16)
    together = model(crops)
    torch.testing.assert_close(torch.cat([model(crop[None]) for crop in crops]), together, **REWRITE)
    assert together.std(0).max() > 0


@torch.no_grad()
def test_coordinates():
    layer = CoordConv(1, 5, side=3, region=True)
    layer.conv.weight.zero_()
    layer.conv.bias.zero_()
    layer.conv.weight[range(5), range(1, 6)] = 1  # passes the coordinates on
    region = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    region[..., 0, 2] = True
    row, column, radius, row_within, column_within = layer(torch.randn(1, 1, 3, 3), region)[0]
    assert row.tolist() == [[-1] * 3, [0] * 3, [1] * 3]
    assert column.tolist() == [[-1, 0, 1]] * 3
    side = 0.5**0.5
    torch.testing.assert_close(radius, torch.tensor([[1, side, 1], [side, 0, side], [1, side, 1]]))
    assert row_within.tolist() == [[0, 0, -1], [0] * 3, [0] * 3]
    assert column_within.tolist() == [[0, 0, 1], [0] * 3, [0] * 3]


def test_every_parameter_learns_from_the_maps():
    model = tiny().train()
    maps = model.intermediate(torch.randn(2, 3, 16, 16))
    sum(m.scores.square().mean() + m.edges.mean() + m.points.mean() for m in maps).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("size", [8, 250, 0])
def test_size_that_does_not_halve_is_refused(size):
    with pytest.raises(ValueError, match="multiple of 64"):
        create("hourglass4", size=size)


def test_star_keys():
    with torch.device("meta"):
        model = create("hourglass4", num_landmarks=98)
    keys = get("star").keys(model)
    own = model.state_dict()
    assert sorted(keys.values()) == sorted(own)
    shape = {theirs: tuple(own[ours].shape) for theirs, ours in keys.items()}
    assert shape["pre.0.conv.weight"] == (64, 6, 7, 7)
    assert shape["pre.1.skip_layer.conv.weight"] == (128, 64, 1, 1)
    assert shape["hgs.0.coordconv.conv.weight"] == (256, 259, 1, 1)
    assert shape["hgs.1.coordconv.conv.weight"] == (256, 261, 1, 1)
    assert shape["merge_edgemaps.2.conv.weight"] == (256, 9, 1, 1)
    assert shape["e2h_transform.weight"] == (98, 9, 1, 1)
    assert shape["e2h_transform.bias"] == (98,)
    assert keys["hgs.2.low2.low2.low2.low2.conv2.conv.bias"] == "stacks.2.hourglass.inner.inner.inner.inner.conv2.bias"
    assert keys["hgs.3.low2.up1.bn3.running_var"] == "stacks.3.hourglass.inner.skip.norm3.running_var"
    assert keys["features.1.1.bn.weight"] == "stacks.1.features.2.weight"


def test_star_keys_that_its_code_never_reads():
    source = get("star")
    for key in (
        "pre.3.skip_layer.conv.weight",
        "hgs.0.up1.skip_layer.conv.bias",
        "hgs.3.low2.low2.low2.low3.skip_layer.conv.weight",
        "features.2.0.skip_layer.conv.bias",
    ):
        assert source.is_unused(key)
    with torch.device("meta"):
        keys = source.keys(create("hourglass4"))
    assert not any(source.is_unused(key) for key in keys)
    assert not source.is_unused("pre.4.skip_layer.conv.weight")


def test_star_keys_of_another_network():
    with pytest.raises(TypeError, match="StackedHourglass"):
        get("star").keys(nn.Linear(1, 1))


def test_export(tmp_path):
    model = tiny()
    program = torch.onnx.export(
        model, (torch.randn(2, 3, 16, 16),), dynamo=True, opset_version=18, verbose=False,
        dynamic_shapes={"crops": {0: torch.export.Dim.DYNAMIC}},
    )  # fmt: skip
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    crops = torch.randn(3, 3, 16, 16)
    (heatmaps,) = session.run(None, {"crops": crops.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(heatmaps), model(crops), **REWRITE)
    convolutions = sum(node.op_type == "Conv" for node in program.model.graph)
    assert convolutions == sum(isinstance(m, nn.Conv2d) for m in model.modules()) + 1, "one attention mask, the last"


def test_star_crop_is_the_public_codes():
    """side = 200 * scale with scale = min(w, h) / 200 * 1.05, the box's centre on pixel 127.5."""
    crop = CropRecipe.from_dict({"size": 256, **get("star").crop}).transform(box=(100, 200, 250, 380))
    assert crop.scale == pytest.approx(256 / (150 * 1.05))
    assert crop.apply([[175, 290]])[0] == pytest.approx([127.5, 127.5])
