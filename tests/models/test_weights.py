"""Loading is strict, and changes nothing when it fails."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from facelm_models import create, default_weights, list_models, load, restore
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


def test_a_file_without_a_card(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    assert read_card(tmp_path / "plain.safetensors") == {}


def test_files_that_are_none(model, tmp_path):
    with pytest.raises(WeightsError, match="no weights file"):
        load(model, tmp_path / "none.safetensors")
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
        pytest.skip(f"no weights of {name} come with the package")
    load(create(name), path)
    assert {"data", "licence", "accuracy"} <= read_card(path).keys()
