"""The comparison with public code, which is not here: on a network of ours under the official names."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from typer import Typer
from typer.testing import CliRunner

from facelm_models import create, official
from facelm_sdk.errors import InputError
from tools import compare_public as tool

OPTIONS = {"size": 64, "dim": 32, "depth": 2}


class Official(nn.Module):
    """FAN, as its public code names its tensors."""

    def __init__(self):
        super().__init__()
        self.network = create("fan2", **OPTIONS)
        self.error = 0.0

    def state_dict(self):
        own = self.network.state_dict()
        return {theirs: own[ours] for theirs, ours in official.get("fan").keys(self.network).items()}

    def load_state_dict(self, state):
        keys = official.get("fan").keys(self.network)
        self.network.load_state_dict({keys[key]: value for key, value in state.items()}, strict=False)

    def forward(self, x):
        first, last = self.network.intermediate(x)
        return [first, last + self.error]


def outputs(network, x):
    return list(network(x) if isinstance(network, Official) else network.intermediate(x))


def pair(**values):
    theirs = Official()
    for name, value in values.items():
        setattr(theirs, name, value)
    return "fan2", theirs, outputs, create("fan2", **OPTIONS), outputs


def test_equal_networks_are_equal_and_others_are_not():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    one = pair()
    found = tool.compare(one, "fan", None, x)
    assert found["largest difference"] == 0 and found["outputs"] == 2 and found["largest output"] > 0
    means = [b for name, b in one[1].named_buffers() if name.endswith("running_mean")]
    assert all(mean.abs().max() > 0 for mean in means), "the statistics are compared, too"
    assert tool.compare(pair(error=0.25), "fan", None, x)["largest difference"] == pytest.approx(0.25, rel=1e-3)


def test_released_weights_take_the_place_of_random_ones(tmp_path):
    released = Official()
    path = tmp_path / "released.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in released.state_dict().items()}}, path)
    one = pair()
    assert tool.compare(one, "fan", path, torch.randn(1, 3, 64, 64))["largest difference"] == 0
    kept = one[3].state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in released.network.state_dict().items())


def test_every_source_is_compared():
    assert sorted(tool.SOURCES) == official.list_sources()


@pytest.mark.parametrize(("source", "message"), [("pfld", "none of the codes slpt"), ("fan", "there is no folder")])
def test_what_is_missing_is_told(tmp_path, source, message):
    app = Typer()
    app.command()(tool.main)
    result = CliRunner().invoke(app, [source, str(tmp_path / "nowhere")])
    assert isinstance(result.exception, InputError) and message in str(result.exception)
