"""What holds for every registered network."""

from __future__ import annotations

import pytest

from facelm_models import info, list_models


@pytest.mark.parametrize("name", list_models())
def test_normalisation_is_stated(name):
    model = info(name)
    assert len(model.mean) == len(model.std) == 3 and min(model.std) > 0
    assert model.channels in ("rgb", "bgr")
