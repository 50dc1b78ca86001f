"""RetinaFace's priors: how many, in which order, and what is encoded against them."""

from __future__ import annotations

import pytest
import torch

from facelm_models import create
from facelm_models.retinaface import Head, decode_boxes, decode_points, encode_boxes, encode_points, priors
from tests.tolerances import ROUND_TRIP

SIZES = ((16, 32), (64, 128), (256, 512))


@pytest.mark.parametrize(("height", "width"), [(133, 211), (64, 64), (65, 32), (1, 1)], ids=str)
@torch.no_grad()
def test_as_many_as_the_network_gives(height, width):
    boxes, logits, points = create("retinaface_mnet025").eval()(torch.zeros(1, 3, height, width))
    count = len(priors(height, width, SIZES))
    assert boxes.shape == (1, count, 4) and logits.shape == (1, count, 2) and points.shape == (1, count, 10)


@torch.no_grad()
def test_strides_and_sizes_stand_in_the_networks_order():
    """Heads whose bias says which prior of which stride they are."""
    network = create("retinaface_mnet025").eval()
    for head, sizes in zip(network.BboxHead, SIZES, strict=True):
        head.conv1x1.weight.zero_()
        head.conv1x1.bias.copy_(torch.tensor(sizes).repeat_interleave(4))
    boxes, _, _ = network(torch.zeros(1, 3, 70, 101))
    prior = priors(70, 101, SIZES)
    torch.testing.assert_close(boxes[0, :, 0], prior[:, 2])
    torch.testing.assert_close(prior[:, 2], prior[:, 3])


@torch.no_grad()
def test_cells_stand_in_the_networks_order():
    """A head that copies where a cell is."""
    rows, columns = 5, 7
    y, x = torch.meshgrid(torch.arange(rows) * 8 + 4.0, torch.arange(columns) * 8 + 4.0, indexing="ij")
    head = Head(2, 2, 2)
    head.conv1x1.bias.zero_()
    head.conv1x1.weight.copy_(torch.eye(2).repeat(2, 1)[..., None, None])
    where = head(torch.stack([x, y])[None])[0]
    torch.testing.assert_close(where, priors(8 * rows, 8 * columns, SIZES)[: len(where), :2])


def test_by_hand():
    prior = torch.tensor([[8.0, 24.0, 16.0, 32.0]])
    encoded = torch.tensor([[1.0, -1.0, 0.0, 5 * torch.tensor(2.0).log()]])
    torch.testing.assert_close(decode_boxes(encoded, prior), torch.tensor([[1.6, -11.2, 17.6, 52.8]]))
    points = decode_points(torch.tensor([[1.0, 2.0] + [0.0] * 8]), prior)
    torch.testing.assert_close(points[0, :2], torch.tensor([[9.6, 30.4], [8.0, 24.0]]))


def test_round_trip():
    torch.manual_seed(0)
    prior = priors(133, 211, SIZES)
    corner = torch.rand(len(prior), 2) * 100
    boxes = torch.cat([corner, corner + 5 + torch.rand(len(prior), 2) * 90], 1)
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, prior), prior), boxes, **ROUND_TRIP)
    points = torch.rand(len(prior), 5, 2) * 200
    torch.testing.assert_close(decode_points(encode_points(points, prior), prior), points, **ROUND_TRIP)
    batch = encode_boxes(boxes, prior).expand(3, -1, -1)
    torch.testing.assert_close(decode_boxes(batch, prior)[2], boxes, **ROUND_TRIP)
