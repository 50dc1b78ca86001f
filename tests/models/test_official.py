"""Checkpoints of the papers' own code load strictly, whatever they are wrapped in."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from facelm_models import create, info, load, official
from facelm_models.weights import WeightsError

# Small networks of each source's family.
NETWORKS = {
    "slpt": ("slpt_hrnet18", {"num_landmarks": 29, "layers": 1}),
    "hrnet": ("hrnet18", {"num_landmarks": 29}),
    "star": ("hourglass4", {"num_landmarks": 29, "stacks": 2, "dim": 32}),
    "fan": ("fan2", {"dim": 32}),
    "retinaface": ("retinaface_mnet025", {}),
    "retinaface_1mb": ("retinaface_mnet025", {"leaky": 0.0, "min_sizes": ((10, 20), (32, 64), (128, 256))}),
}


def network(source):
    name, options = NETWORKS[source]
    return create(name, **options)


def checkpoint(source):
    """Random tensors under the official names."""
    torch.manual_seed(1)
    model = network(source)
    own = model.state_dict()
    keys = official.get(source).keys(model)
    return {
        theirs: torch.rand(own[ours].shape) if own[ours].is_floating_point() else own[ours]
        for theirs, ours in keys.items()
    }


def test_every_source_is_tested():
    assert sorted(NETWORKS) == official.list_sources()


@pytest.mark.parametrize("source", NETWORKS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_fills_the_network(source, prefix, tmp_path):
    state = checkpoint(source)
    wrapped = {prefix + key: value for key, value in state.items()}
    if prefix:
        wrapped = {official.get(source).inside[-1]: wrapped, "epoch": 7}
    path = tmp_path / "official.pth"
    torch.save(wrapped, path)
    model = load(network(source), path, source=source)
    own, keys = model.state_dict(), official.get(source).keys(model)
    assert all(torch.equal(own[ours], state[theirs]) for theirs, ours in keys.items())
    left = set(own) - set(keys.values()) - set(official.get(source).absent)
    assert all(key.endswith("num_batches_tracked") for key in left), left


@pytest.mark.parametrize("source", NETWORKS)
def test_what_does_not_fit_is_named_as_the_checkpoint_names_it(source):
    state = checkpoint(source)
    model = network(source)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    weights = [key for key in state if key.endswith(".weight")]
    missing, wrong = weights[0], weights[-1]
    broken = {key: value for key, value in state.items() if key != missing}
    broken[wrong] = torch.zeros(3, 5)
    broken["head.of.another"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        load(model, broken, source=source)
    message = str(caught.value)
    assert f"missing: {missing}" in message
    assert "unknown: head.of.another" in message
    assert f"shape of {wrong}: (3, 5), not" in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_values_that_are_no_tensors():
    state = checkpoint("fan") | {"conv1.bias": "hello"}
    with pytest.raises(WeightsError, match=r"conv1\.bias is a str, not a tensor"):
        load(network("fan"), state, source="fan")


def test_unknown_sources_and_other_networks():
    with pytest.raises(official.UnknownSource, match=r"'pfld'.*fan, hrnet, retinaface"):
        load(network("fan"), {}, source="pfld")
    with pytest.raises(WeightsError, match="fit hourglass4, not a FAN"):
        load(network("fan"), {}, source="star")


def test_twins_of_the_same_shape_are_told_by_their_options():
    """The 1 MB detector's tensors fit the original network, whose activations and priors are others."""
    with pytest.raises(WeightsError, match=r"retinaface_1mb need a network created with leaky=0\.0, min_sizes="):
        load(create("retinaface_mnet025"), checkpoint("retinaface_1mb"), source="retinaface_1mb")


def test_the_mean_face_stays_and_is_told(caplog):
    model = network("slpt")
    face = torch.rand(29, 2)
    model.mean_shape.copy_(face)
    with caplog.at_level(logging.WARNING):
        load(model, checkpoint("slpt"), source="slpt")
    assert "mean_shape" in caplog.text
    assert torch.equal(model.mean_shape, face)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load(model, checkpoint("slpt") | {"mean_shape": 1 - face}, source="slpt")
    assert not caplog.text
    assert torch.equal(model.mean_shape, 1 - face)
    load(model, checkpoint("slpt"), source="slpt", beside={"mean_shape": face})
    assert not caplog.text
    assert torch.equal(model.mean_shape, face)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_torchscript_archive(tmp_path):
    """FAN's newer checkpoints are whole scripted networks."""
    small = create("fan2", stacks=1, dim=32, depth=1).eval()
    keys = official.get("fan").keys(small)

    class Official(torch.nn.Module):
        """The tensors under their official names, which have no dots in a flat one."""

        def __init__(self):
            super().__init__()
            for theirs, ours in keys.items():
                *path, leaf = theirs.split(".")
                place = self
                for part in path:
                    if not hasattr(place, part):
                        setattr(place, part, torch.nn.Module())
                    place = getattr(place, part)
                place.register_buffer(leaf, torch.rand_like(small.state_dict()[ours].float()))

        def forward(self, x):
            return x

    script = torch.jit.script(Official())
    path = tmp_path / "2DFAN.zip"
    script.save(str(path))
    other = load(create("fan2", stacks=1, dim=32, depth=1), path, source="fan")
    state = script.state_dict()
    for theirs, ours in keys.items():
        if not ours.endswith("num_batches_tracked"):
            assert torch.equal(other.state_dict()[ours], state[theirs]), theirs


def test_files_that_are_no_checkpoints(tmp_path):
    for name, content in (("text.pth", None), ("list.pth", [1, 2]), ("code.pth", {"x": Path("a path")})):
        path = tmp_path / name
        path.write_text("hello") if content is None else torch.save(content, path)
        with pytest.raises(WeightsError, match=r"cannot be read|holds a list"):
            load(network("fan"), path, source="fan")
    with pytest.raises(WeightsError, match="there is no weights file"):
        load(network("fan"), tmp_path / "none.pth", source="fan")
    with pytest.raises(WeightsError, match=r"not a \.safetensors file.*fan, hrnet"):
        load(network("fan"), tmp_path / "text.pth")


@pytest.mark.parametrize("source", NETWORKS)
def test_sources_describe_registered_variants(source):
    described = official.get(source)
    assert described.name == source
    for name in described.models:
        config = info(name).config
        assert all(hasattr(config, entry) for entry in described.overrides)
