"""What is drawn in the docs is what the package says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from facelm_sdk import markup as markups

MARKUPS = Path(__file__).resolve().parents[1] / "docs" / "markups"


@pytest.fixture(scope="module")
def draw():
    spec = importlib.util.spec_from_file_location("draw_markups", MARKUPS / "draw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", markups.names())
def test_the_pictures_of_the_markups_are_those_of_the_script(draw, name):
    assert (MARKUPS / f"{name}.svg").read_text() == draw.picture(name), "run python docs/markups/draw.py"
    points = draw.front(name)
    assert np.isfinite(points).all() and (points > 0).all() and (points < (draw.WIDTH, draw.HEIGHT)).all()
    mirrored = points[list(markups.get(name).flip)] * (-1, 1) + (draw.WIDTH, 0)
    np.testing.assert_allclose(mirrored, points, atol=1e-6)


def test_the_page_shows_every_markup():
    page = (MARKUPS / "README.md").read_text()
    assert all(f"]({name}.svg)" in page for name in markups.names())
