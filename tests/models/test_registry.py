"""Names, variants and overrides."""

from __future__ import annotations

import dataclasses

import pytest

from facelm_models import create, info, list_models
from facelm_models.registry import UnknownModel, register


def test_names():
    assert {"lotr_m", "retinaface_mnet025"} <= set(list_models())
    assert "lotr_m" in list_models("landmarks") and "lotr_m" not in list_models("detection")
    assert list_models() == sorted(list_models())
    for name in list_models():
        assert info(name).name == name


def test_duplicate_is_refused_and_changes_nothing():
    before = info("lotr_m")
    with pytest.raises(ValueError, match=r"'lotr_m' is already registered"):
        register(dataclasses.replace(before, paper="another"))
    assert info("lotr_m") is before


def test_unknown_name_lists_the_names_and_suggests():
    with pytest.raises(UnknownModel) as caught:
        create("lotr-m")
    message = str(caught.value)
    assert "'lotr-m'" in message and "Did you mean 'lotr_m'?" in message
    assert all(name in message for name in list_models())
    with pytest.raises(KeyError) as caught:
        info("zzz")
    assert "Did you mean" not in str(caught.value)


def test_overrides():
    model = create("lotr_m", num_landmarks=98, size=64)
    assert model.mean_shape.shape == (98, 2)
    assert model.side == 2
    assert info("lotr_m").config.num_landmarks == 68


def test_unknown_override():
    with pytest.raises(TypeError, match=r"lotr_m has no option \['landmarks'\]; options: \[.*'num_landmarks'"):
        create("lotr_m", landmarks=98)


def test_configs_are_frozen():
    for name in list_models():
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(info(name).config, dataclasses.fields(info(name).config)[0].name, 1)
