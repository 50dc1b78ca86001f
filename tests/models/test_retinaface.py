"""RetinaFace: its sizes against the public code, and its checkpoints' conventions."""

from __future__ import annotations

import pytest
import torch

from facelm_models import create, info, weights
from facelm_models.complexity import multiply_adds, outline, parameters
from facelm_models.official import get
from tests.tolerances import REWRITE

VARIANTS = ["retinaface_mnet025", "retinaface_r50"]

KEYS = {
    "retinaface_mnet025": ("body.stage1.0.0.weight", "body.stage1.1.3.weight", "body.stage3.1.4.running_var"),
    "retinaface_r50": (
        "body.conv1.weight",
        "body.bn1.running_mean",
        "body.layer1.0.downsample.0.weight",
        "body.layer3.5.conv3.weight",
        "body.layer4.2.bn3.bias",
    ),
}
SHARED = (
    "fpn.output3.1.bias",
    "fpn.merge2.0.weight",
    "ssh2.conv7X7_2.0.weight",
    "ssh3.conv7x7_3.1.running_mean",
    "ClassHead.0.conv1x1.weight",
    "BboxHead.1.conv1x1.bias",
    "LandmarkHead.2.conv1x1.weight",
)


@pytest.mark.parametrize(
    ("name", "millions", "at_640", "at_320"),
    [("retinaface_mnet025", 0.4266, 0.981, 0.245), ("retinaface_r50", 27.294, 44.26, 11.07)],
)
def test_sizes_are_the_public_codes(name, millions, at_640, at_320):
    model = outline(name)
    assert parameters(model) / 1e6 == pytest.approx(millions, rel=1e-3)
    assert multiply_adds(model, 640)["Global"] == pytest.approx(at_640, rel=1e-3)
    assert multiply_adds(model, 320)["Global"] == pytest.approx(at_320, rel=2e-3)


@pytest.mark.parametrize("name", VARIANTS)
def test_keys_are_those_of_public_checkpoints(name):
    model = outline(name)
    assert {*KEYS[name], *SHARED} <= set(model.state_dict())
    table = get("retinaface").keys(model)
    assert set(table.values()) == set(model.state_dict())
    assert all(theirs == ours for theirs, ours in table.items())


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_pictures_do_not_depend_on_their_batch(name):
    torch.manual_seed(0)
    model = create(name).eval()
    images = 60 * torch.randn(2, 3, 41, 70)
    together = model(images)
    assert [part.shape for part in together] == [(2, 150, 4), (2, 150, 2), (2, 150, 10)]
    for i, image in enumerate(images):
        for part, alone in zip(together, model(image[None]), strict=True):
            torch.testing.assert_close(alone[0], part[i], **REWRITE)


def test_only_the_original_with_narrow_maps_is_leaky():
    """As in the public code; running statistics and shapes cannot tell, so the configs must say."""
    assert info("retinaface_mnet025").config.leaky == 0.1
    assert info("retinaface_r50").config.leaky == 0.0
    assert any(isinstance(m, torch.nn.LeakyReLU) for m in outline("retinaface_mnet025").modules())
    assert not any(isinstance(m, torch.nn.LeakyReLU) for m in outline("retinaface_r50").modules())


@torch.no_grad()
def test_the_1mb_variant_has_the_same_keys_and_other_outputs():
    torch.manual_seed(0)
    original = create("retinaface_mnet025").eval()
    weights.load(original, weights.default_weights("retinaface_mnet025"))
    small = create("retinaface_mnet025", **get("retinaface_1mb").overrides).eval()
    assert not any(isinstance(m, torch.nn.LeakyReLU) for m in small.modules())
    assert small.config.min_sizes == ((10, 20), (32, 64), (128, 256))
    checkpoint = {f"module.{key}": value for key, value in original.state_dict().items()}
    weights.load(small, checkpoint, source="retinaface_1mb")
    images = 60 * torch.randn(1, 3, 64, 64)
    assert (small(images)[0] - original(images)[0]).abs().max() > 0.1, "silently the same"


def test_the_two_sources_do_not_mix():
    original = create("retinaface_mnet025")
    small = create("retinaface_mnet025", **get("retinaface_1mb").overrides)
    with pytest.raises(weights.WeightsError, match=r"retinaface_1mb need .*leaky=0.0, min_sizes=\(\(10, 20\)"):
        weights.load(original, small.state_dict(), source="retinaface_1mb")
    with pytest.raises(weights.WeightsError, match=r"weights of retinaface need .*min_sizes=\(\(16, 32\)"):
        weights.load(small, original.state_dict(), source="retinaface")


def test_checkpoints_of_the_other_backbone_are_refused():
    with pytest.raises(weights.WeightsError, match=r"missing: body\.stage1\.0\.0\.weight"):
        weights.load(create("retinaface_mnet025"), outline("retinaface_r50").state_dict(), source="retinaface")
    with pytest.raises(TypeError, match="fit a RetinaFace, not a Linear"):
        get("retinaface").keys(torch.nn.Linear(1, 1))


def test_unknown_backbone():
    with pytest.raises(ValueError, match="no backbone 'vgg'; backbones: mobilenet025, resnet50, lite"):
        create("retinaface_mnet025", backbone="vgg")


@torch.no_grad()
def test_r50_exports_with_any_size():
    torch.manual_seed(0)
    model = create("retinaface_r50").eval()
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    graph = torch.export.export(model, (60 * torch.randn(1, 3, 96, 128),), dynamic_shapes=(sides,)).module()
    images = 60 * torch.randn(1, 3, 70, 101)
    for actual, expected in zip(graph(images), model(images), strict=True):
        torch.testing.assert_close(actual, expected, **REWRITE)
