"""Perceptrons over rows against those over tokens."""

from __future__ import annotations

import torch
from torch import nn

from facelm_export.passes.rows import Rows, perceptrons_over_rows


@torch.no_grad()
def test_a_perceptron_over_rows_is_the_same():
    torch.manual_seed(0)
    network = nn.Sequential(nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))).eval()
    x = torch.randn(3, 5, 8)
    expected = network(x)
    perceptrons_over_rows(network)
    assert isinstance(network[1], Rows) and not isinstance(network[0], Rows)
    found = network(x)
    assert found.shape == (3, 5, 2)
    torch.testing.assert_close(found, expected)
