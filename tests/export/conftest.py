"""Exports that tests share: each takes many seconds, so each is made once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from facelm_export import Exported, export
from facelm_models import create
from facelm_models.lotr import LOTR
from facelm_models.retinaface import RetinaFace
from facelm_models.weights import save

CARD = {"data": "drawn at random", "licence": "none needed", "accuracy": {"nme": 0.5}}


def disturbed(name: str, **options: Any) -> nn.Module:
    """An untrained network whose outputs depend on its input, as those of a freshly built one hardly do."""
    torch.manual_seed(3)
    network = create(name, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = None  # the plain mean of the statistics of what it is shown
    detector = isinstance(network, RetinaFace)
    spread, size = (60, 160) if detector else (1, network.config.size)
    with torch.no_grad():
        coarse = torch.randn(4 if options else 8, 3, 6, 6) * spread
        network(nn.functional.interpolate(coarse, (size, size), mode="bilinear"))
        if isinstance(network, LOTR):
            network.mean_shape.uniform_(0.2, 0.8)
            network.head[-1].weight.mul_(0.04)  # a few pixels, and what fp16 rounds away a fraction of one
        if detector:
            for head in (*network.BboxHead, *network.LandmarkHead):
                head.conv1x1.weight.mul_(0.0015)
            for head in network.ClassHead:  # a few faces, no two of them with scores that fp16 could swap
                head.conv1x1.weight.mul_(0.04)
                head.conv1x1.bias[1::2] -= 2
    return network.eval()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes the weights of ``disturbed(name)``."""
    folder = tmp_path_factory.mktemp("weights")

    @functools.cache
    def write(name: str) -> Path:
        path = folder / f"{name}.safetensors"
        save(path, disturbed(name), CARD)
        return path

    return write


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, weights: Callable[[str], Path]) -> Callable[..., Exported]:
    """Exports ``disturbed(name)`` with the options of facelm_export.export."""
    folder = tmp_path_factory.mktemp("exported")

    done: dict[object, Exported] = {}

    def make(name: str, precision: str = "fp32", **options: object) -> Exported:
        key = (name, precision, *sorted(options.items()))
        if key not in done:
            done[key] = export(name, precision=precision, weights=weights(name), out=folder, **options)
        return done[key]

    return make
