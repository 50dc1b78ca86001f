"""What the report beside a file says."""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
from pathlib import Path

import pytest

from facelm_export import export
from facelm_export.report import latency
from facelm_export.report.facts import command, file_facts, machine
from facelm_export.report.markdown import markdown, size


@pytest.fixture
def report(exported):
    return json.loads(exported("lotr_m").report_path.read_text())


def sections(text):
    """The titles of a Markdown text and what stands below each."""
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in text.split("## ")[1:]}


def rows(text):
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in cells}


def test_one_short_table_a_topic(report):
    parts = sections(markdown(report))
    assert list(parts) == ["Model", "File", "Parity with PyTorch fp32", "Latency", "Made by"]
    model, file = rows(parts["Model"]), rows(parts["File"])
    assert model["model"] == ["lotr_m"] and model["markup"] == ["ibug68, 68 points"]
    assert model["weights, sha256"] == [report["weights_sha256"]] and model["crops in a run"] == ["any number"]
    assert file["ONNX opset"] == [str(report["opset"])] and file["ONNX nodes"] == [str(report["nodes"])]
    assert file["sha256"] == [report["sha256"]] and file["size"][0].endswith("MiB") and file["made for"] == ["CPU"]
    assert all(len(table) < 14 for table in map(rows, parts.values()))


def test_parity_stands_beside_its_limits(report):
    report["parity"] |= {"max_px": 0.00002, "p99_px": 0.5, "crops": 24}
    part = sections(markdown(report))["Parity with PyTorch fp32"]
    assert rows(part)["largest difference, px"] == ["0.00002", "0.02", "yes"]
    assert rows(part)["99th percentile, px"] == ["0.5", "0.01", "no"]
    assert rows(part)["mean, px"][1:] == ["", ""]
    assert "crops: 24" in part and "untrained" not in part
    untrained = markdown({**report, "weights_sha256": None})
    assert "weights are untrained, so a miss did not count" in untrained


def test_latency_of_both_sides(report):
    timed = report["latency"]
    assert timed["batch"] == 1 and timed["input"] == "crops uint8 (1, 192, 192, 3)"
    assert timed["timed"][0]["threads"] == 1
    for one in timed["timed"]:
        assert list(one["ms"]) == ["pytorch", "onnxruntime"]
        for ms in one["ms"].values():
            assert 0 < ms["min"] <= ms["q1"] <= ms["median"] <= ms["q3"] and ms["runs"] >= latency.LEAST_RUNS
        assert bool(one["ratios"]) != bool(one["no_ratio"])
    ms = {"min": 3, "median": 3.14159, "q1": 3, "q3": 312.4, "runs": 7}
    timed["timed"] = [
        {"threads": 1, "ms": {"onnxruntime": ms}, "ratios": {"onnxruntime": 4.5}, "no_ratio": None},
        {"threads": 2, "ms": {}, "ratios": {}, "no_ratio": "the machine was busy"},
        {"threads": 4, "ms": {}, "ratios": {"openvino": 5, "onnxruntime": 4}, "no_ratio": None},
    ]
    part = sections(markdown(report))["Latency"]
    assert rows(part)["ONNX Runtime, CPU"] == ["1", "3", "3.14", "3 to 312", "7"]
    assert "- 1 thread, batch 1: ONNX Runtime 4.50 times as fast as PyTorch" in part
    assert "- 2 threads, batch 1: the machine was busy" in part
    assert "- 4 threads, batch 1: OpenVINO 5.00 times as fast, ONNX Runtime 4.00 times as fast as PyTorch" in part


@pytest.mark.parametrize("format", ["engine", "openvino"])
def test_parity_is_said_of_what_was_compared(report, format):
    assert "## Parity of the ONNX graph with PyTorch fp32" in markdown({**report, "format": format})
    assert "## Parity with PyTorch fp32" in markdown({**report, "format": "triton"})


def test_a_fixed_batch_and_a_detector_are_timed_on_what_they_take(exported):
    assert exported("lotr_m", batch=4).report["latency"]["input"] == "crops uint8 (4, 192, 192, 3)"
    assert exported("retinaface_mnet025").report["latency"]["input"] == "image uint8 (1, 480, 640, 3)"
    text = exported("retinaface_mnet025").report_path.with_suffix(".md").read_text()
    assert rows(sections(text)["Model"])["task"] == ["detection"]
    assert "crops in a run" not in text and "flip averaging |" not in text


def test_without_latency(report):
    del report["latency"]
    assert "Latency" not in markdown(report)
    assert command(export, {"model": "m", "latency": False}) == "facelm-export --model m --no-latency"


def test_nothing_in_it_names_the_machine_or_its_user(exported, weights):
    done = exported("lotr_m")
    text = done.report_path.read_text() + done.report_path.with_suffix(".md").read_text()
    for name in (str(weights("lotr_m").parent), str(done.path.parent), str(Path.home()), str(Path.cwd()), "/"):
        assert len(name) < 2 or name not in text
    host, user = socket.gethostname(), getpass.getuser()
    assert len(host) < 4 or host not in text
    assert f"/{user}" not in text
    assert machine().keys() == {"cpu", "cores", "threads", "os", "architecture"}
    assert machine()["cores"] == os.cpu_count() and machine()["os"] == platform.system()


def test_the_command_makes_the_file_again(exported):
    assert exported("lotr_m").report["command"] == "facelm-export --model lotr_m --weights lotr_m.safetensors"
    half = exported("lotr_m", precision="fp16").report["command"]
    assert half == "facelm-export --model lotr_m --fp16 --weights lotr_m.safetensors"
    fixed = exported("lotr_m", batch=4).report["command"]
    assert fixed == "facelm-export --model lotr_m --batch 4 --weights lotr_m.safetensors"
    asked = {"model": "hourglass4", "source": "star", "weights": "/a/b c.pkl", "max_batch": 32, "random": False}
    assert command(export, asked) == ("facelm-export --model hourglass4 --max-batch 32 --weights 'b c.pkl' --from star")
    asked = {"model": "lotr_m", "precision": "int8", "target": "tensorrt", "calib": Path("/x/faces"), "out": "a.onnx"}
    assert command(export, asked, "--import", "mine.py") == (
        "facelm-export --import mine.py --model lotr_m --int8 --target tensorrt --calib faces --out a.onnx"
    )


def test_the_files_of_a_format(tmp_path):
    alone = file_facts(tmp_path / "x.onnx", {tmp_path / "x.onnx": b"abc"})
    assert alone["bytes"] == 3 and len(alone["sha256"]) == 64 and "files" not in alone
    pair = file_facts(tmp_path / "x.xml", {tmp_path / "x.xml": b"abc", tmp_path / "x.bin": b"0" * 5000})
    assert pair["bytes"] == 3 and pair["files"]["x.bin"]["bytes"] == 5000
    folder = file_facts(tmp_path / "served", {tmp_path / "served" / "m" / "1" / "model.onnx": b"abc"})
    assert folder["bytes"] == 3 and folder["sha256"] is None and list(folder["files"]) == ["m/1/model.onnx"]


def test_facts_that_a_format_adds(report, tmp_path):
    facts = file_facts(tmp_path / "x.engine", {tmp_path / "x.engine": b"0" * 5000, tmp_path / "x.engine.json": b"{}"})
    about = {"engine": {"built_with": "tensorrt 11.0", "gpu": None, "crops": (1, 8)}, "workspace_mib": 64}
    text = markdown({**report, "file": "x.engine", "format": "engine", "target": "tensorrt", **facts, **about})
    parts = sections(text)
    assert text.startswith("# x.engine\n")
    assert rows(parts["File"])["format"] == ["TensorRT engine"] and rows(parts["File"])["workspace mib"] == ["64"]
    assert rows(parts["File"])["x.engine.json"][0] == "0.0 KiB"
    assert rows(parts["Engine"]) == {
        **rows(parts["Engine"]),
        "built_with": ["tensorrt 11.0"],
        "gpu": ["none"],
        "crops": ["1, 8"],
    }
    assert size(2**21) == "2.00 MiB"


def test_a_table_holds_any_text(report):
    text = markdown({**report, "licence": "a|b"})
    assert "| licence | a\\|b |" in text
