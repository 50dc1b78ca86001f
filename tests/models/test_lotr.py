"""LOTR: its sizes against table I, section IV-E and table V of the paper, and what its points depend on."""

from __future__ import annotations

import pytest
import torch

from facelm_models import create, info, weights
from facelm_models.complexity import multiply_adds, outline, parameters, running_statistics, share
from facelm_models.layers import AxialPositions
from facelm_models.lotr import HRNetW18C
from tests.tolerances import PAPER, REWRITE

VARIANTS = ["lotr_m", "lotr_m_plus", "lotr_r_plus", "lotr_hr_plus"]


@pytest.mark.parametrize(
    ("name", "millions", "megabytes"),
    [("lotr_m", 2.81, 10.59), ("lotr_m_plus", 3.71, 14.03), ("lotr_r_plus", 25.21, 95.97)],
)
def test_sizes_are_the_papers(name, millions, megabytes):
    """Table V: running statistics count as parameters, megabytes hold what is trained."""
    model = outline(name, num_landmarks=106)
    assert (parameters(model) + running_statistics(model)) / 1e6 == pytest.approx(millions, rel=PAPER)
    assert parameters(model) * 4 / 2**20 == pytest.approx(megabytes, rel=PAPER)


@pytest.mark.parametrize(
    ("name", "trained", "statistics"),
    [
        ("lotr_m", 2_779_330, 34_112),
        ("lotr_m_128", 2_787_330, 34_112),
        ("lotr_m_plus", 3_680_258, 34_496),
        ("lotr_r_plus", 25_161_026, 53_504),
        ("lotr_hr_plus", 20_899_670, 51_600),
    ],
)
def test_snapshot_of_sizes(name, trained, statistics):
    model = outline(name, num_landmarks=106)
    assert (parameters(model), running_statistics(model)) == (trained, statistics)


@pytest.mark.parametrize(
    ("name", "paper", "total", "backbone", "upsampling", "feedforward"),
    [
        ("lotr_m", 0.23, 0.2702, 0.2200, 0.0029, 0.0047),
        ("lotr_m_plus", 0.44, 0.4603, 0.2200, 0.0495, 0.0223),
        ("lotr_r_plus", 3.23, 3.2501, 3.0028, 0.0566, 0.0223),
    ],
)
def test_multiply_adds(name, paper, total, backbone, upsampling, feedforward):
    """Counted is every convolution, linear layer and attention product, in G; the paper does not say what it counts.

    With eq. 13's single layer for D -> 128 -> D, which its sizes rule out, M+ and R+ meet it. M does not: the backbone
    and eq. 8 nearly fill its 0.23, and the head of table I, which its sizes demand, takes 0.031 for 106 points.
    """
    counts = multiply_adds(outline(name, num_landmarks=106), 192)
    assert counts["Global"] == pytest.approx(total, rel=1e-3)
    assert counts["LOTR.backbone"] == pytest.approx(backbone, rel=1e-3)
    assert share(counts, "reduce", "upsample") == pytest.approx(upsampling, rel=2e-2)
    assert share(counts, "feedforward") == pytest.approx(feedforward, rel=2e-2)
    assert counts["LOTR.head"] == pytest.approx(0.0314, rel=1e-2)
    if name != "lotr_m":
        assert total - feedforward * 3 / 4 == pytest.approx(paper, rel=PAPER)


def test_hrnet_is_the_size_of_its_imagenet_network():
    """21.3 M parameters with its classifier (Wang et al. 2020, HRNet-W18-C)."""
    with torch.device("meta"):
        backbone = HRNetW18C()
    assert (parameters(backbone) + 2049 * 1000) / 1e6 == pytest.approx(21.3, rel=PAPER)


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [("lotr_m", 192, 6), ("lotr_m_128", 128, 8), ("lotr_m_plus", 192, 24), ("lotr_hr_plus", 256, 32)],
)
def test_inputs_and_tokens(name, size, side):
    """Section IV-C: 6 x 6 cells, and 24 x 24 after two deconvolutions."""
    model = outline(name)
    assert info(name).input_size == model.config.size == size
    assert model.side == side
    assert len(model.queries[0]) == 68


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_shapes_and_independence_of_the_batch(name):
    torch.manual_seed(0)
    model = create(name, num_landmarks=29, size=64).eval()
    crops = torch.randn(3, 3, 64, 64)
    together = model(crops)
    assert together.shape == (3, 29, 2)
    torch.testing.assert_close(torch.cat([model(crop[None]) for crop in crops]), together, **REWRITE)
    assert together.std(0).max() > 1e-4, "the points do not depend on the picture"
    (only,) = model.intermediate(crops)
    assert torch.equal(only, together)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_starts_near_its_mean_shape_with_points_told_apart(name):
    torch.manual_seed(0)
    model = create(name, size=64).eval()
    crops = torch.randn(2, 3, 64, 64)
    offsets = model(crops) - model.mean_shape
    assert offsets.abs().max() < 0.5
    assert offsets.std(1).min() > 1e-3
    model.mean_shape += 0.25
    torch.testing.assert_close(model(crops) - model.mean_shape, offsets)


@torch.no_grad()
def test_points_depend_on_where_features_are():
    torch.manual_seed(0)
    model = create("lotr_m_plus", size=64).eval()
    crops = torch.randn(1, 3, 64, 64)
    before = model(crops)
    model.position.rows.copy_(model.position.rows.flip(0))
    assert (model(crops) - before).abs().max() > 1e-4


@torch.no_grad()
def test_axial_positions_by_hand():
    positions = AxialPositions(2, 4)
    positions.rows.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    positions.columns.copy_(torch.tensor([[5.0, 6.0], [7.0, 8.0]]))
    expected = [[1.0, 2, 5, 6], [1, 2, 7, 8], [3, 4, 5, 6], [3, 4, 7, 8]]
    assert torch.equal(positions()[0], torch.tensor(expected))


def test_the_trained_checkpoint_keeps_its_keys():
    path = weights.default_weights("lotr_m")
    assert path is not None
    state = weights.read(path)
    own = [key for key in outline("lotr_m").state_dict() if not key.endswith("num_batches_tracked")]
    assert sorted(state) == sorted(own)
    assert state["position"].shape == (1, 36, 64)


def test_sides_and_backbones_are_checked():
    with pytest.raises(ValueError, match="multiple of 32, not 100"):
        create("lotr_m", size=100)
    with pytest.raises(ValueError, match="no backbone 'vgg'; backbones: mobilenet_v2, resnet50, hrnet_w18"):
        create("lotr_m", backbone="vgg")


@torch.no_grad()
def test_exports_with_any_batch():
    torch.manual_seed(0)
    model = create("lotr_m_plus", num_landmarks=5, size=32).eval()
    batch = {0: torch.export.Dim.DYNAMIC}
    graph = torch.export.export(model, (torch.randn(2, 3, 32, 32),), dynamic_shapes=(batch,)).module()
    crops = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(graph(crops), model(crops), **REWRITE)


def test_a_lateral_connection_of_zeros_changes_nothing():
    """Cells of the coarse map that are told apart by nothing share the attention that one of them had."""
    plain = create("lotr_m", size=64).eval()
    finer = create("lotr_m", size=64, lateral=True).eval()
    state = plain.state_dict()
    state["position"] = (
        state["position"].unflatten(1, (2, 2)).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2)
    )
    state["lateral.weight"] = torch.zeros_like(finer.lateral.weight)
    state["lateral.bias"] = torch.zeros_like(finer.lateral.bias)
    finer.load_state_dict(state)
    crops = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(finer(crops), plain(crops), **REWRITE)
    finer.lateral.weight.data.normal_()
    assert (finer(crops) - plain(crops)).abs().max() > 0.001


@pytest.mark.parametrize("options", [{"backbone": "resnet50"}, {"upsampling": (64,)}])
def test_lateral_connections_are_refused_where_there_is_no_map_for_them(options):
    with pytest.raises(ValueError, match="lateral connection with mobilenet_v2"):
        create("lotr_m", size=64, lateral=True, **options)


@pytest.mark.parametrize(("backbone", "millions"), [("mobilenet_v2", 3.89), ("resnet50", 25.24)])
def test_cnn_and_ffn_has_the_papers_size(backbone, millions):
    """Table V, batch norm statistics counted as in the sizes of LOTR."""
    network = outline("lotr_m", num_landmarks=106, transformer=False, backbone=backbone)
    statistics = sum(b.numel() for name, b in network.named_buffers() if "running" in name)
    assert (parameters(network) + statistics) / 1e6 == pytest.approx(millions, abs=0.005)


@torch.no_grad()
def test_cnn_and_ffn_starts_at_its_mean_shape_and_sees_the_picture():
    network = create("lotr_m", size=64, num_landmarks=5, transformer=False, dropout=0.0).train()
    network.mean_shape.uniform_(0.2, 0.8)
    crops = torch.randn(3, 3, 64, 64)
    points = network(crops)
    assert points.shape == (3, 5, 2)
    torch.testing.assert_close(network.intermediate(crops)[0], points)
    assert (points - network.mean_shape).abs().max() < 1
    assert points.std(0).max() > 1e-4
    with pytest.raises(ValueError, match="no tokens of points"):
        create("lotr_m", size=64, transformer=False, confidence=True)
