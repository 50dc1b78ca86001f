"""The measurement of poses: errors wrap around, and faces that are not found are counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from facelm_sdk.pose import HeadPose
from tools.pose import error, table

RESULTS = Path(__file__).resolve().parents[2] / "training" / "results"


def test_errors_wrap_around():
    np.testing.assert_allclose(error(HeadPose(179, 10, -3), HeadPose(-179, 12, 3)), (2, 2, 6))


def test_a_table_by_yaw():
    pairs = [
        (HeadPose(11, 0, 0), HeadPose(10, 0, 0)),
        (HeadPose(-8, 4, 0), HeadPose(-11, 0, 0)),
        (None, HeadPose(-40, 0, 0)),
        (HeadPose(50, 0, 2), HeadPose(44, 0, 0)),
    ]
    rows = table(pairs)
    assert list(rows) == ["0-15", "30-45", "all"]
    assert rows["0-15"] == {"faces": 2, "not_found": 0, "yaw": 2.0, "pitch": 2.0, "roll": 0.0, "median_yaw": 2.0}
    assert (rows["30-45"]["faces"], rows["30-45"]["not_found"], rows["30-45"]["yaw"]) == (2, 1, 6.0)
    assert rows["all"]["faces"] == 4


@pytest.mark.parametrize(("kind", "column"), [("heads", 2), ("photographs", 3), ("labels", 4)])
def test_the_page_says_what_was_measured(kind, column):
    record = json.loads((RESULTS / "pose.json").read_text())[kind]
    page = (RESULTS / "README.md").read_text()
    for span in ("0-15", "15-30", "30-45", "45-60"):
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {span} |")]
        shown = [float(value) for value in line.split("|")[column].split(",")]
        np.testing.assert_allclose(shown, [record[span][name] for name in HeadPose._fields], atol=0.051)
