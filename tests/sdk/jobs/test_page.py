"""What docs/big-jobs.md says of 100 million pictures is what was measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "site" / "big_jobs.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("big_jobs_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_and_the_picture_are_of_the_committed_rates(script):
    page = script.PAGE.read_text()
    assert script.with_table(page) == page, "run python docs/site/big_jobs.py"
    assert script.PICTURE.read_text() == script.picture(), "run python docs/site/big_jobs.py"


def test_hours_are_pictures_by_rate(script):
    assert script.hours({"job_cpu_ms_a_picture": 36.0}) == pytest.approx(1000)
    assert script.hours({"job_cpu_ms_a_picture": 36.0}, 1000) == pytest.approx(1)
    assert (script.spoken(47.0), script.spoken(240.0)) == ("47.0 h", "10.0 days")
