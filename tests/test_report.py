"""The table that is made of a benchmark run."""

from __future__ import annotations

import copy
import json

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.report import markdown, report

COMMON = {
    "threads": 2,
    "cpu": "A Processor 9000",
    "weights": {"lotr_m": "packaged"},
    "versions": {"onnxruntime": "1.2", "torch": "3.4"},
}


def timed(group, variant, median):
    stats = {"median": median, "q1": 0.9 * median, "q3": 1.2 * median}
    return {"group": group, "extra_info": {**COMMON, "variant": variant}, "stats": stats}


RESULT = {
    "datetime": "2026-01-02T03:04:05",
    "machine_info": {
        "system": "Linux",
        "machine": "x86_64",
        "python_version": "3.11.7",
        "command": "pytest benchmarks/ --benchmark-only",
    },
    "benchmarks": [
        timed("landmarks, batch 1", "PyTorch eager", 0.012),
        timed("landmarks, batch 1", "onnxruntime", 0.004),
        timed("landmarks, batch 8", "onnxruntime", 0.5),
        timed("landmarks, batch 8", "PyTorch eager", 0.4),
        timed("crop", "OpenCV", 0.000123),
    ],
}


def rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"][2:]


def test_medians_and_ratios():
    assert rows(markdown(RESULT)) == [
        ["landmarks, batch 1", "onnxruntime", "4 (3.6-4.8)", "12.0 (10.8-14.4)", "3.00"],
        ["landmarks, batch 8", "onnxruntime", "500 (450-600)", "400 (360-480)", "0.80"],
        ["crop", "OpenCV", "0.123 (0.111-0.148)", "", ""],
    ]


def test_the_circumstances_stand_beside_the_numbers():
    text = markdown(RESULT)
    for part in (
        "A Processor 9000, 2 threads, Linux x86_64",
        "Python 3.11.7, onnxruntime 1.2, torch 3.4",
        "lotr_m packaged",
        "2026-01-02, `pytest benchmarks/ --benchmark-only`",
    ):
        assert part in text


def test_runs_are_not_mixed():
    mixed = copy.deepcopy(RESULT)
    mixed["benchmarks"][0]["extra_info"]["threads"] = 8
    with pytest.raises(typer.BadParameter, match="differ in threads"):
        markdown(mixed)
    with pytest.raises(typer.BadParameter, match="no benchmarks"):
        markdown({**RESULT, "benchmarks": []})


def test_the_script(tmp_path):
    app = typer.Typer()
    app.command()(report)
    source, target = tmp_path / "run.json", tmp_path / "run.md"
    source.write_text(json.dumps(RESULT))
    assert CliRunner().invoke(app, [str(source)]).stdout == markdown(RESULT)
    assert CliRunner().invoke(app, [str(source), "-o", str(target)]).exit_code == 0
    assert target.read_text() == markdown(RESULT)
