"""Points to heatmaps and back."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facelm_models.heatmaps import (
    argmax_quarter,
    decode,
    encode,
    encode_quantised,
    expectation,
    local_soft_argmax,
    soft_argmax,
    to_cells,
    to_fractions,
)
from facelm_models.registry import HEATMAPS, Decoder, decoder, list_decoders, register_decoder
from facelm_training.losses import structured
from tests.tolerances import GRADIENT, REWRITE

SIZE = (12, 16)  # h, w: unequal, so that swapped axes show


def cells(points, size=SIZE, **options):
    return to_cells(torch.as_tensor(points, dtype=torch.float64), size, **options)


def one_map(values, size=SIZE):
    """(1, 1, h, w) with ``values`` {(x, y): value}."""
    heatmap = torch.zeros(1, 1, *size, dtype=torch.float64)
    for (x, y), value in values.items():
        heatmap[0, 0, y, x] = value
    return heatmap


def test_cells_by_hand():
    """The crop's left and top edges are half a cell before cell 0, or at it with corners."""
    assert cells([[0.0, 0.0], [1.0, 1.0], [0.5, 0.25]]).tolist() == [[-0.5, -0.5], [15.5, 11.5], [7.5, 2.5]]
    assert cells([[0.0, 0.0], [1.0, 1.0], [0.5, 0.25]], corners=True).tolist() == [[0, 0], [15, 11], [7.5, 2.75]]


@pytest.mark.parametrize("corners", [False, True])
@settings(deadline=None)
@given(points=st.lists(st.tuples(st.floats(-1, 2), st.floats(-1, 2)), min_size=1, max_size=5))
def test_fractions_are_the_inverse_of_cells(corners, points):
    fractions = torch.tensor(points, dtype=torch.float64)
    back = to_fractions(to_cells(fractions, SIZE, corners=corners), SIZE, corners=corners)
    torch.testing.assert_close(back, fractions)


def test_a_gaussian_by_hand():
    point = to_fractions(torch.tensor([[[4.25, 7.0]]], dtype=torch.float64), SIZE)
    heatmap = encode(point, SIZE, sigma=1.5)[0, 0]
    assert heatmap.shape == SIZE
    assert heatmap[7, 4].item() == pytest.approx(math.exp(-0.0625 / 4.5))
    assert heatmap[9, 6].item() == pytest.approx(math.exp(-(1.75**2 + 4) / 4.5))
    quantised = encode_quantised(point, SIZE, sigma=1.5)[0, 0]
    assert quantised[7, 4].item() == 1
    assert quantised[9, 6].item() == pytest.approx(math.exp(-8 / 4.5))


def test_quantising_rounds_to_the_nearest_cell():
    point = to_fractions(torch.tensor([[[4.49, 6.51], [4.5, 5.5]]], dtype=torch.float64), SIZE)
    peaks = encode_quantised(point, SIZE).flatten(2).argmax(-1)
    assert peaks.tolist() == [[7 * 16 + 4, 6 * 16 + 5]]


def test_a_gaussian_needs_a_width():
    with pytest.raises(ValueError, match="sigma > 0"):
        encode(torch.zeros(1, 1, 2), SIZE, sigma=0.0)


def test_argmax_quarter_by_hand():
    """Towards the larger neighbour on each axis; none where they are equal."""
    points, scores = argmax_quarter(one_map({(5, 3): 0.9, (6, 3): 0.5, (4, 3): 0.4, (5, 2): 0.1}))
    assert cells(points)[0, 0].tolist() == pytest.approx([5.25, 2.75])
    assert scores.item() == 0.9
    points, _ = argmax_quarter(one_map({(5, 3): 0.9, (6, 3): 0.4, (4, 3): 0.4}))
    assert cells(points)[0, 0].tolist() == pytest.approx([5, 3])


def test_gaussians_are_one_cell_wide_unless_told():
    point = to_fractions(torch.tensor([[[4.0, 7.0]]], dtype=torch.float64), SIZE)
    for heatmaps in (encode(point, SIZE), encode_quantised(point, SIZE)):
        assert heatmaps[0, 0, 7, 4:7].tolist() == pytest.approx([1, math.exp(-0.5), math.exp(-2)])


@pytest.mark.parametrize("place", [(0, 0), (15, 11), (0, 5), (15, 5), (5, 0), (5, 11)])
def test_argmax_quarter_stays_on_the_border(place):
    x, y = place
    beside = {(min(x + 1, 15), y): 0.5, (x, min(y + 1, 11)): 0.5, (max(x - 1, 0), y): 0.3}
    points, _ = argmax_quarter(one_map({**beside, place: 0.9}))
    assert cells(points)[0, 0].tolist() == pytest.approx(list(place))


def test_local_soft_argmax_by_hand():
    """Two cells of weights e^9 and e^7 among 23 of weight 1: eq. 4 with temperature 10 over a window of 5x5."""
    points, scores = local_soft_argmax(one_map({(5, 6): 0.9, (6, 6): 0.7, (12, 1): 0.8}))
    shift = (math.exp(7) - 1) / (math.exp(9) + math.exp(7) + 23)
    assert cells(points)[0, 0].tolist() == pytest.approx([5 + shift, 6])
    assert scores.item() == 0.9


def test_local_soft_argmax_in_a_corner():
    """A flat map's first cell is in the corner: the window's nine cells inside count alike, their mean is (1, 1)."""
    points, scores = local_soft_argmax(torch.full((2, 3, *SIZE), 0.25, dtype=torch.float64))
    torch.testing.assert_close(cells(points), torch.ones(2, 3, 2, dtype=torch.float64))
    assert (scores == 0.25).all()


def test_a_heatmap_smaller_than_the_window():
    points, _ = local_soft_argmax(torch.zeros(1, 1, 2, 3, dtype=torch.float64))
    assert cells(points, (2, 3))[0, 0].tolist() == pytest.approx([1, 0.5])


@pytest.mark.parametrize("window", [0, 4, -3])
def test_a_window_is_odd(window):
    with pytest.raises(ValueError, match="odd and positive"):
        local_soft_argmax(torch.zeros(1, 1, *SIZE), window=window)


def test_expectation_by_hand():
    """Corners convention: cell 15 of 16 is the crop's right edge."""
    points, scores = expectation(one_map({(0, 0): 1.0, (15, 0): 3.0}))
    assert points[0, 0].tolist() == pytest.approx([0.75, 0])
    assert scores is None
    points, _ = expectation(torch.zeros(1, 1, *SIZE))
    assert points[0, 0].tolist() == [0.5, 0.5]


def test_scores_are_clamped():
    values = one_map({(5, 6): 1.7}), one_map({(5, 6): -0.5}) - 1
    assert [argmax_quarter(v)[1].item() for v in values] == [1, 0]
    assert [local_soft_argmax(v)[1].item() for v in values] == [1, 0]


@settings(deadline=None)
@given(x=st.floats(3, 12), y=st.floats(3, 8))
def test_encode_then_decode(x, y):
    """Within half a cell when quantised; a quarter continuous and with argmax; 0.2 with the local soft-argmax."""
    point = to_fractions(torch.tensor([[[x, y]]], dtype=torch.float64), SIZE)

    def worst(heatmaps, decoding):
        return (cells(decode(heatmaps, decoding)[0]) - cells(point)).abs().max().item()

    assert worst(encode_quantised(point, SIZE), "argmax") <= 0.5 + 1e-9
    assert worst(encode(point, SIZE), "argmax") <= 0.25 + 1e-9
    assert worst(encode(point, SIZE), "local_soft_argmax") <= 0.2


@pytest.mark.parametrize("decoding", ["local_soft_argmax", "expectation", "soft_argmax"])
def test_gradients_flow(decoding):
    torch.manual_seed(0)
    heatmaps = torch.rand(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: decode(maps, decoding)[0], heatmaps)
    (slope,) = torch.autograd.grad(decode(heatmaps, decoding)[0].sum(), heatmaps)
    assert (slope != 0).flatten(2).any(-1).all()


def test_gradients_stay_in_the_window():
    heatmaps = one_map({(5, 6): 0.9, (6, 6): 0.7}).requires_grad_()
    (slope,) = torch.autograd.grad(local_soft_argmax(heatmaps)[0][..., 0].sum(), heatmaps)
    weight = 10 * math.exp(9) / (math.exp(9) + math.exp(7) + 23)
    shift = (math.exp(7) - 1) / (math.exp(9) + math.exp(7) + 23)
    torch.testing.assert_close(slope[0, 0, 6, 5].item() * 16, -weight * shift, **GRADIENT)
    assert slope[0, 0, 4:9, 3:8].abs().sum() == slope.abs().sum()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("decoding", [name for name in list_decoders() if decoder(name).takes == HEATMAPS])
def test_half_precision_is_decoded_in_fp32(dtype, decoding):
    torch.manual_seed(1)
    heatmaps = torch.rand(2, 3, *SIZE).to(dtype)
    points, _ = decode(heatmaps, decoding)
    assert points.dtype == torch.float32
    torch.testing.assert_close(points, decode(heatmaps.double(), decoding)[0].float(), **REWRITE)


def test_structured_scores_are_read_at_the_temperature_of_their_loss():
    """At its least, the structured loss's scores are logits of the label's bilinear weights less the margin.

    So temperature 1 finds the label; 10, which Gaussians of height 1 want, hardly leaves the largest cell.
    """
    point = torch.tensor([[[6.3, 4.6]]], dtype=torch.float64)  # cells
    scores = torch.zeros(1, 1, *SIZE, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([scores], max_iter=200, line_search_fn="strong_wolfe")

    def step():
        optimiser.zero_grad()
        loss = structured(scores, point)
        loss.backward()
        return loss

    optimiser.step(step)
    own, sharp, quarter = (
        (cells(decode(scores.detach(), name)[0]) - point).abs().max().item()
        for name in ("structured", "local_soft_argmax", "argmax")
    )
    assert own < 0.02 and sharp > 0.2 and quarter > 0.1


def test_what_each_decoder_is():
    """The parameters that training, evaluation and exported files share, and who has scores."""
    described = {name: decoder(name) for name in list_decoders()}
    assert {n: (d.window, d.temperature, d.has_scores, d.of_maps) for n, d in described.items()} == {
        "coordinates": (None, None, False, False),
        "argmax": (None, None, True, True),
        "local_soft_argmax": (5, 10.0, True, True),
        "structured": (5, 1.0, False, True),
        "expectation": (None, None, False, True),
        "soft_argmax": (None, 1.0, False, True),
        "corrected_argmax": (None, None, True, True),
    }
    maps = torch.rand(2, 3, *SIZE)
    outputs = {"coordinates": maps[..., 0, :2], "corrected_argmax": torch.rand(2, 3, 8 * 8 + 2)}
    for name, found in described.items():
        points, scores = decode(outputs.get(name, maps), name)
        assert points.shape == (2, 3, 2) and (scores is not None) == found.has_scores
    expected, _ = local_soft_argmax(maps, window=5, temperature=1.0)
    assert torch.equal(decode(maps, "structured")[0], expected)


def test_decoders_are_registered_once():
    before = decoder("argmax")
    with pytest.raises(ValueError, match="'argmax' is already registered"):
        register_decoder(Decoder("argmax", expectation, has_scores=False))
    assert decoder("argmax") is before
    with pytest.raises(KeyError, match="no decoding is named 'soft'; decodings: coordinates, argmax"):
        decode(torch.zeros(1, 1, *SIZE), "soft")


def test_parameters_follow_a_name():
    maps = torch.rand(2, 3, *SIZE)
    found = decoder("local_soft_argmax:temperature=5,window=7")
    assert (found.name, found.window, found.temperature) == ("local_soft_argmax:window=7,temperature=5", 7, 5.0)
    assert found.has_scores and decoder(found.name) == found
    expected, _ = local_soft_argmax(maps, window=7, temperature=5.0)
    assert torch.equal(decode(maps, found.name)[0], expected)
    assert decoder("structured:temperature=2").window == 5
    assert decoder("local_soft_argmax").window == 5, "what is registered stays"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local_soft_argmax:window=4", "has an odd window and a temperature above 0, as local_soft_argmax:window=5"),
        ("local_soft_argmax:width=3", "has an odd window"),
        ("local_soft_argmax:", "has an odd window"),
        ("structured:temperature=0", "a temperature above 0"),
        ("soft_argmax:window=3", "soft_argmax has a temperature above 0, as soft_argmax:temperature=1"),
        ("soft_argmax:temperature=nan", "a temperature above 0"),
        ("argmax:window=3", "argmax has no parameters"),
        ("soft:window=3", "no decoding is named 'soft'"),
    ],
)
def test_wrong_parameters_are_told(name, message):
    with pytest.raises(KeyError, match=message):
        decoder(name)


def test_soft_argmax_by_hand():
    heatmap = one_map({(3, 2): math.log(4), (8, 5): math.log(2)})
    rest = SIZE[0] * SIZE[1]
    x = (4 * 3 + 2 * 8 + (rest / 16 * 120 - 3 - 8)) / (rest + 4)
    y = (4 * 2 + 2 * 5 + (rest / 12 * 66 - 2 - 5)) / (rest + 4)
    torch.testing.assert_close(cells(soft_argmax(heatmap)[0])[0, 0].tolist(), [x, y])
    sharp = cells(soft_argmax(heatmap, temperature=50.0)[0])[0, 0]
    torch.testing.assert_close(sharp.tolist(), [3.0, 2.0])


def test_corrections_are_added_to_the_largest_cell():
    heatmap = one_map({(3, 2): 0.8}, size=(6, 6))
    output = torch.cat([heatmap.flatten(2), torch.tensor([[[0.25, -0.5]]], dtype=torch.float64)], 2)
    points, scores = decode(output, "corrected_argmax")
    torch.testing.assert_close(cells(points, size=(6, 6))[0, 0].tolist(), [3.25, 1.5])
    assert scores.item() == 0.8
