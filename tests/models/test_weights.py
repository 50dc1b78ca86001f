"""Loading is strict, and changes nothing when it fails."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from facelm_models import create, default_weights, list_models, load, restore, weights
from facelm_models.lotr import LOTR
from facelm_models.weights import WeightsError, read, read_card, save


@pytest.fixture
def model():
    torch.manual_seed(1)
    return create("lotr_m", size=32)


def snapshot(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_same(model, state):
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("queries"), "missing: queries"),
        (lambda state: state.update(extra=torch.zeros(1)), "unknown: extra"),
        (
            lambda state: state.update(queries=torch.zeros(1, 5, 64)),
            r"shape of queries: \(1, 5, 64\), not \(1, 68, 64\)",
        ),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_what_does_not_fit_is_named(model, change, message):
    before = snapshot(model)
    state = snapshot(create("lotr_m", size=32))
    change(state)
    with pytest.raises(WeightsError, match=f"do not fit LOTR:\n  {message}"):
        load(model, state)
    assert_same(model, before)


def test_every_problem_is_named(model):
    state = snapshot(model)
    state["other"] = state.pop("queries")
    with pytest.raises(WeightsError, match=r"(?s)missing: queries.*unknown: other"):
        load(model, state)


def test_weights_of_another_architecture(model):
    with pytest.raises(
        WeightsError, match=r"missing: position\n(.*\n)*  and more; in all: missing \d+, unknown \d+$"
    ) as caught:
        load(model, create("retinaface_mnet025").state_dict())
    assert len(str(caught.value).splitlines()) == 18


def test_round_trip(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    card = {"data": "drawn at random", "accuracy": {"nme": 4.5}}
    save(path, model, card)
    other = create("lotr_m", size=32)
    assert load(other, path) is other
    assert_same(other, model.state_dict())
    read_back = read_card(path)
    config = {key: tuple(v) if isinstance(v, list) else v for key, v in read_back.pop("config").items()}
    assert read_back == {**card, "architecture": "LOTR"}
    assert config == dataclasses.asdict(model.config)
    assert not any(key.endswith("num_batches_tracked") for key in read(path))


def test_a_file_says_what_it_is_of(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    save(path, model, {"model": "lotr_m"})
    other = restore(path)
    assert other.config == model.config and not other.training
    assert_same(other, model.state_dict())
    save(path, model, {})
    with pytest.raises(WeightsError, match="does not say which network it is of"):
        restore(path)
    with pytest.raises(WeightsError, match="no weights file"):
        restore(tmp_path / "none.safetensors")


def test_a_name_restores_the_weights_that_come_with_the_package():
    network = restore("lotr_m_128")
    assert type(network) is LOTR and network.config.size == 128 and not network.training
    assert_same(network, read(default_weights("lotr_m_128")) | counters(network))
    assert_same(restore(default_weights("lotr_m_128")), network.state_dict())


def counters(model):
    return {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}


def test_names_without_weights(tmp_path, monkeypatch):
    with pytest.raises(WeightsError) as caught:
        restore("mtld_r101")
    message = str(caught.value)
    offered = ", ".join(name for name in list_models() if default_weights(name))
    assert (
        f"no weights of mtld_r101 come with facelm-weights; those of {offered} do" in message
        and "lotr_m_128" in offered
    )
    assert message.splitlines()[-1].strip() == "facelm_models.restore('mtld_r101.safetensors')"
    with pytest.raises(WeightsError, match=r"no weights file lotr-m, and no model is named 'lotr-m'\. Did you mean"):
        restore("lotr-m")
    for missing in ("weights/lotr_m", "lotr_m.safetensors", tmp_path / "lotr_m"):
        with pytest.raises(WeightsError, match="there is no weights file"):
            restore(missing)
    monkeypatch.chdir(tmp_path)
    save("fan2", create("fan2", stacks=1, dim=16, depth=1, size=16), {"model": "fan2"})  # a file comes first
    with pytest.raises(WeightsError, match=r"fan2 is not a \.safetensors file"):
        restore("fan2")


def with_card(path, card):
    """A file of one tensor with that text as its card."""
    save_file({"x": torch.zeros(1)}, path, metadata={"facelm": card})
    return path


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("5", r"is 5, not a JSON object"),
        ("null", r"is null, not a JSON object"),
        ('["config"]', r"not a JSON object"),
        ("{", r"is not JSON: JSONDecodeError"),
        ("[" * 100_000, r"is not JSON: RecursionError"),
        ('{"model": "lotr_m", "config": []}', r"config of the card in .* is \[\], not a JSON object"),
        ('{"model": 5, "config": {}}', r"model of the card in .* is 5, not a JSON string"),
        ('{"model": "lotr_m", "config": {}, "crop": "kps5"}', r"crop of the card in .* not a JSON object"),
    ],
)
def test_cards_that_are_none(tmp_path, card, message):
    path = with_card(tmp_path / "card.safetensors", card)
    for read_it in (read_card, restore):
        with pytest.raises(WeightsError, match=message):
            read_it(path)


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        ("lotr_m", {"num_landmarks": 10**8}, r"say num_landmarks = 100000000, which no network has"),
        ("lotr_m", {"upsampling": [64, [10**30]]}, r"say upsampling = .*which no network has"),
        ("lotr_m", {"size": float("nan")}, r"say size = NaN, which no network has"),
        ("lotr_m", {"layers": -5}, r"say layers = -5, which no network has"),
        ("lotr_m", {"dim": 16384, "feedforward": 16384, "head": 16384}, r"do not fit LOTR:\n  missing: "),
        ("lotr_m", {"size": 100}, r"cannot be built with .*multiple of 32, not 100"),
        ("lotr_m", {"size": "big"}, r"another version of lotr_m.*TypeError"),
        ("lotr_m", {"backbone": ["resnet50"]}, r"no backbone"),
        ("lotr_m", {"width": 3}, r"another version of lotr_m.*unexpected keyword argument 'width'"),
        ("hourglass4", {"depth": 16384, "size": 0}, r"another version of hourglass4"),
        ("lotr_xl", {}, r"is of a model that is not registered: no model is named 'lotr_xl'"),
    ],
)
def test_cards_of_networks_that_are_none(tmp_path, model, config, message):
    """Told before memory is taken for them."""
    path = with_card(tmp_path / "card.safetensors", json.dumps({"model": model, "config": config}))
    with pytest.raises(WeightsError, match=f"(?s){message}"):
        restore(path)


def test_a_file_without_a_card(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    assert read_card(tmp_path / "plain.safetensors") == {}


def test_files_that_are_none(model, tmp_path):
    with pytest.raises(WeightsError, match="no weights file"):
        load(model, tmp_path / "none.safetensors")
    for name in (f"{'x' * 5000}.safetensors", "a\0.safetensors"):  # no error of the system's own
        with pytest.raises(WeightsError, match="no weights file"):
            restore(name)
    with pytest.raises(WeightsError, match=r"not a \.safetensors file"):
        load(model, tmp_path / "pickle.pt")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load(model, tmp_path / "text.safetensors")
    save(tmp_path / "whole.safetensors", model, {})
    data = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load(model, tmp_path / "half.safetensors")


@pytest.mark.parametrize("name", list_models())
def test_packaged_weights_fit_and_say_where_they_come_from(name):
    path = default_weights(name)
    if path is None:
        pytest.skip(f"no weights of {name} are at hand")
    restore(path)
    assert {"data", "licence", "accuracy"} <= read_card(path).keys()


def test_weights_in_half_the_bytes(tmp_path):
    """Kernels and matrices are rounded to fp16; they load into an fp32 network all the same."""
    network = create("lotr_m", num_landmarks=5, size=64)
    network.mean_shape.uniform_()
    full, half = (weights.to_bytes(network, {"model": "lotr_m"}, half=one) for one in (False, True))
    assert len(half) < 0.55 * len(full)
    path = tmp_path / "half.safetensors"
    path.write_bytes(half)
    found = restore(path)
    for key, value in network.state_dict().items():
        mine = found.state_dict()[key]
        assert mine.dtype == value.dtype
        torch.testing.assert_close(mine, value, rtol=1e-3, atol=1e-6)
    assert torch.equal(found.mean_shape, network.mean_shape)
    with torch.no_grad():
        network.head[0].weight[0, 0] = 1e6
    with pytest.raises(WeightsError, match=r"head\.0\.weight has numbers that fp16 cannot hold"):
        weights.to_bytes(network, {}, half=True)
