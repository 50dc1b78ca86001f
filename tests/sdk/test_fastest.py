"""Every way to run the models side by side, and what is advised."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import facelm_sdk
from facelm_sdk import bench as benching
from facelm_sdk import cli, fastest, machine, zoo
from facelm_sdk.bench import summary
from facelm_sdk.errors import InputError, UnknownModelError
from facelm_sdk.fastest import DEFAULT, Setup, Way, advice
from facelm_sdk.runtimes.base import RuntimeOptions
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.runtimes.openvino import OpenVinoSession

THREADS = ("1 thread", "2 threads")


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(benching, "WARM_UP_SECONDS", 0)
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)


def typed(line):
    """What the line gives that is advised, with the names of docs/backends.md."""
    names = {"zoo": zoo, "OpenVinoSession": OpenVinoSession, "RuntimeOptions": RuntimeOptions}
    names |= {name: getattr(facelm_sdk, name) for name in ("Aligner", "Landmarker", "Detector")}
    return eval(line, names)


def test_all_ways_of_a_model(landmark_model):
    pytest.importorskip("openvino")
    found = fastest.fastest(landmark_model(), batch=2, seconds=0)
    expected = [
        f"{runtime}, {threads}" for runtime in ("onnxruntime", "OpenVINO") for threads in ("1 thread", "2 threads")
    ]
    assert [way.name for way in found.ways][:5] == ["as it comes", *expected]
    assert found.what == "landmarks of 2 crops of 32 px"
    crops = np.zeros((2, 32, 32, 3), np.uint8)
    for way in found.ways:
        landmarker = typed(way.line)
        assert landmarker(crops).shape == (2, 68, 2)
        assert isinstance(landmarker.session, OpenVinoSession if "OpenVINO" in way.name else OrtSession)
        assert way.ms["runs"] >= 3 and (way.busy is None or "busy" in way.busy)


def test_ways_of_the_whole_aligner_are_lines_that_can_be_typed():
    pytest.importorskip("openvino")
    setups = [DEFAULT, Setup("fp32", 2), Setup("int8", 1, openvino=True)]
    lines = [setup.line(None, "Aligner") for setup in setups]
    assert lines[:2] == ["Aligner()", 'Aligner(threads=2, variant="fp32")']
    for setup, line in zip(setups, lines, strict=True):
        own, other = setup.aligner(), typed(line)
        (one,), (two,) = (aligner(benching.PICTURE) for aligner in (own, other))
        assert np.array_equal(one.landmarks, two.landmarks)
        assert own.landmarker.spec == other.landmarker.spec
    assert Setup(provider="tensorrt").line("x.onnx", "Detector") == (
        "Detector(\"x.onnx\", providers=['tensorrt', 'cuda'])"
    )


def test_what_there_is_not_is_told_with_the_reason(landmark_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = fastest.fastest(landmark_model(), seconds=0)
    told = dict(found.missing)
    assert not any("OpenVINO" in way.name for way in found.ways)
    assert 'pip install "facelm-sdk[openvino]"' in told["OpenVINO, 1 thread"]


def test_embedded_models_are_tried_in_each_precision(monkeypatch):
    names = [setup.name for setup in fastest._setups(None)]
    assert {"onnxruntime fp32, 1 thread", "onnxruntime int8, 2 threads", "OpenVINO int8, 1 thread"} < set(names)
    monkeypatch.setattr(fastest.load_onnxruntime(), "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert [setup.name for setup in fastest._setups("retinaface_lite")][-1] == "onnxruntime on cuda"


def ways(*times):
    figures = [summary(ms) for ms in times]
    return tuple(
        Way(f"way {place}", f"Type({place})", ms, benching.ratio(figures[0], ms)[0], benching.unsteady(ms))
        for place, ms in enumerate(figures)
    )


STEADY, FAST, SAME, BUSY = [10, 10, 11], [5, 5, 5], [9.5, 10, 10], [4, 8, 16]


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ([STEADY, SAME, FAST], "way 2 is 2.00 times as fast as Type(0); type Type(2)"),
        ([STEADY, SAME], "leave it at Type(0): nothing else is faster by 10% (the best, way 1, is 1.00 times as fast)"),
        ([STEADY, SAME, BUSY], "leave it at Type(0)"),
        ([BUSY, FAST], "no advice: the machine was busy: a quarter of the runs took 3.0 times as long"),
        ([STEADY, BUSY], "no advice: there is nothing else to compare with Type(0), or the machine was busy"),
        ([STEADY], "no advice: there is nothing else"),
    ],
)
def test_advice(times, told):
    assert advice(ways(*times)).startswith(told)


def test_refusals(landmark_model):
    for options, message in (
        ({"batch": 0}, "batch is at least 1"),
        ({"seconds": -1}, "seconds is 0 or more"),
        ({"model": "x.xml"}, r"x\.xml is of one runtime"),
    ):
        with pytest.raises(InputError, match=message):
            fastest.fastest(**{"model": landmark_model(), "seconds": 0, **options})
    with pytest.raises(UnknownModelError, match="lotr_m"):
        fastest.fastest("lotr_x", seconds=0)


def test_the_commands(landmark_model, monkeypatch):
    options = ["bench", str(landmark_model()), "--all", "--seconds", "0"]
    text = CliRunner().invoke(cli.app, options)
    assert text.exit_code == 0
    for word in ("landmarks of 1 crop of 32 px", "as it comes", "onnxruntime, 1 thread", "median ms", "least"):
        assert word in text.stdout
    record = json.loads(CliRunner().invoke(cli.app, [*options, "--json"]).stdout)
    assert record["ways"][0]["line"].startswith("Landmarker(") and record["advice"] and record["machine"]["cores"]
    refused = CliRunner().invoke(cli.app, [*options, "--threads", "2", "--variant", "int8"])
    assert "--all tries what there is: leave out --threads, --variant" in str(refused.exception or refused.output)
    monkeypatch.setattr(fastest, "fastest", lambda: fastest.Ways("", ways(STEADY, FAST), (), "type this", {}, {}))
    measured, plain = (
        {check["name"]: check["detail"] for check in json.loads(CliRunner().invoke(cli.app, command).stdout)}
        for command in (["doctor", "--json", "--measure"], ["doctor", "--json"])
    )
    assert measured["fastest way"] == "type this"
    assert measured["way 1"] == "5 ms a picture of 640x480 with one face; 2.00 times as fast as Aligner()"
    assert "facelm doctor --measure" in plain["fastest way"] and "way 1" not in plain
