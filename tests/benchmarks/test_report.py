"""The report that is made of a benchmark run, and the comparison of two."""

from __future__ import annotations

import copy
import json
import re
from xml.etree import ElementTree

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.report import compare
from benchmarks.report.__main__ import report
from benchmarks.report.html_report import accuracies, html, markdown
from benchmarks.report.results import read, run_of
from benchmarks.report.targets import targets


def timed(test, median, spread=0.02, rounds=25, info=None, axes=("backend", "precision"), **params):
    rest = [f"{key}={value}" for key, value in sorted(params.items()) if key not in axes]
    median /= 1000
    return {
        "name": f"test_{test}[{'-'.join(map(str, params.values()))}]",
        "group": " ".join([test, *rest]),
        "params": params,
        "extra_info": {"axes": list(axes), "p90": 1.2 * median, "p99": 1.5 * median, **(info or {})},
        "stats": {
            "median": median,
            "q1": (1 - spread) * median,
            "q3": (1 + spread) * median,
            "rounds": rounds,
        },
    }


def landmarks(model, batch, backend, precision, median):
    share = {
        "multiply_adds": 0.25 * batch,
        "multiply_adds_per_second": 20.0,
        "peak_multiply_adds_per_second": 50.0,
        "share_of_peak": 0.4,
    }
    return timed("landmarks", median, info=share, model=model, batch=batch, backend=backend, precision=precision)


SCORES = {"faces": 554, "found": 554, "without": 300, "false": 1, "nme": 3.654, "above 8%": 0.18}

RESULT = {
    "datetime": "2026-01-02T03:04:05",
    "machine_info": {
        "python_version": "3.11.7",
        "facelm": {
            "format": 2,
            "threads": 2,
            "versions": {"onnxruntime": "1.2", "torch": "3.4"},
            "cpu": "A <Processor> 9000",
            "cores": 4,
            "os": "Linux",
            "architecture": "x86_64",
            "peak_multiply_adds_per_second": 51.0,
            "command": "pytest benchmarks/ --benchmark-only",
        },
    },
    "benchmarks": [
        landmarks("lotr_m", 1, "eager", "fp32", 12),
        landmarks("lotr_m", 1, "onnxruntime", "fp32", 4),
        landmarks("lotr_m", 1, "onnxruntime", "int8", 1.5),
        landmarks("lotr_m", 8, "eager", "fp32", 40),
        landmarks("lotr_m", 8, "onnxruntime", "fp32", 50),
        *(timed("static", ms, axes=("who",), who=who) for who, ms in (("facelm", 6.0), ("mediapipe_static", 4.0))),
        *(
            timed("peers", ms, axes=("who",), info=info, faces=faces, who=who)
            for faces, who, ms, info in (
                ("one", "facelm", 6.0, {"what": "ours", **SCORES}),
                ("one", "mesh", 4.5, {"what": "a mesh", "peer_version": "1.2", **SCORES, "nme": 5.3, "found": 550}),
                ("one", "boxes", 20.0, {"what": "boxes alone", "faces": 554, "found": 554}),
                ("none", "facelm", 2.0, {"what": "ours"}),
            )
        ),
        *(
            timed("parts", ms, axes=("part",), model="lotr_m", precision="fp32", part=part)
            for part, ms in (("preprocessing", 0.1), ("network", 4.0), ("decoding", 0.05))
        ),
        *(
            timed("stages", ms, axes=("stage",), stage=stage)
            for stage, ms in (("whole", 9.0), ("decode", 1.0), ("detect", 3.0), ("network", 4.0))
        ),
        timed("cold_start", 500, axes=("who",), who="facelm", info={"rss_mb": 150.0, "rss_peak_mb": 160.0}),
    ],
    "not_run": [{"reason": "PyTorch sees no CUDA device", "tests": ["test_gpu[a]", "test_gpu[b]"]}],
}


def run(result=RESULT):
    return run_of(result, result["machine_info"], "run.json")


@pytest.fixture
def write(tmp_path):
    def to(name, result):
        path = tmp_path / name
        path.write_text(json.dumps(result))
        return path

    return to


def rows(text, title):
    """The cells of the table under a heading."""
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"][
        2:
    ]


def test_medians_tails_and_ratios():
    found = rows(markdown(run()), "Comparisons")
    assert found[:2] == [
        ["landmarks batch=1 model=lotr_m", "eager fp32", "12.0 (11.8-12.2)", "14.4", "18.0", ""],
        ["landmarks batch=1 model=lotr_m", "onnxruntime fp32", "4 (3.92-4.08)", "4.8", "6", "3.00"],
    ]
    assert found[4][1:] == ["onnxruntime fp32", "50.0 (49.0-51.0)", "60.0", "75.0", "0.80"]


def test_targets_are_met_missed_or_not_measured():
    verdicts = {target.what: (target.found, target.verdict) for target in targets(run())}
    assert verdicts["Aligner, 640x480, one face / MediaPipe FaceMesh static"] == ("1.5x", "missed")
    assert verdicts["lotr_m: PyTorch eager / fastest backend (onnxruntime int8)"] == ("8x", "met")
    assert verdicts["lotr_m: PyTorch eager / onnxruntime fp32"] == ("3x", "missed")
    assert verdicts["lotr_m: preprocessing and decoding / network, in the graph"] == ("3.75%", "met")
    assert verdicts["memory of a process with an Aligner"] == ("150 MB", "met")
    assert verdicts["Tracker, 640x480, one face / MediaPipe FaceMesh tracking"] == ("", "not measured")


def test_speed_and_error_of_peers_stand_in_one_table():
    assert rows(markdown(run()), "Peers") == [
        ["ours", "6 (5.88-6.12)", "1.00", "2", "554 of 554", "1 of 300", "3.65", "0.2"],
        ["a mesh 1.2", "4.5 (4.41-4.59)", "0.75", "", "550 of 554", "1 of 300", "5.30", "0.2"],
        ["boxes alone", "20.0 (19.6-20.4)", "3.33", "", "554 of 554", "", "", ""],
    ]
    assert "<td>554 of 554</td>" in html(run(), {})
    assert rows(markdown(run({**RESULT, "benchmarks": RESULT["benchmarks"][:3]})), "Peers") == []


def test_the_circumstances_stand_beside_the_numbers():
    text = markdown(run())
    for part in (
        "A <Processor> 9000, 4 cores, Linux x86_64; 2 threads used",
        "onnxruntime 1.2, torch 3.4",
        "2026-01-02, pytest benchmarks/ --benchmark-only",
    ):
        assert part in text
    assert rows(text, "Not run") == [["PyTorch sees no CUDA device", "2", "test_gpu[a], test_gpu[b]"]]


def test_the_page_is_whole_and_needs_no_network():
    page = html(run(), {"lotr_m": 4.9})
    assert not re.search(r"<script|<link|<img|src=|href=|url\(|@import", page)
    assert "A &lt;Processor&gt; 9000" in page
    charts = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]
    assert len(charts) >= 6
    texts = [{text.text for text in chart.iter("{http://www.w3.org/2000/svg}text")} for chart in charts]
    assert any({"facelm", "mediapipe_static", "6 ms", "4 ms"} <= chart for chart in texts)
    assert any({"milliseconds a crop", "NME, %", "lotr_m", "onnxruntime int8"} <= chart for chart in texts)
    assert any({"decode", "detect", "8 ms", "9 ms"} <= chart for chart in texts)
    assert page.count('<tr class="missed">') == sum(target.verdict == "missed" for target in targets(run())) > 0


def test_accuracy_is_that_of_the_contract_or_of_the_training(tmp_path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"model": "lotr_m", "val_nme": 9.0}, {"model": "fan2", "val_nme": 7.1}]))
    assert accuracies(run(), results) == {"lotr_m": 9.0, "fan2": 7.1}
    stated = copy.deepcopy(RESULT)
    stated["benchmarks"][0]["extra_info"]["accuracy"] = {"val, %": {"single": {"median": 3.5, "nme": 3.8}}}
    assert accuracies(run(stated), results) == {"lotr_m": 3.8, "fan2": 7.1}


def test_an_older_format_is_told():
    old = copy.deepcopy(RESULT)
    del old["machine_info"]["facelm"]
    with pytest.raises(typer.BadParameter, match="is of format 1, this report reads 2"):
        run(old)
    with pytest.raises(typer.BadParameter, match="no benchmarks"):
        run({**RESULT, "benchmarks": []})


def test_a_file_of_something_else(write, tmp_path):
    for path in (write("list.json", []), tmp_path / "none.json"):
        with pytest.raises(typer.BadParameter, match="not a file of pytest"):
            read(path)


def changed(factor, side="onnxruntime int8", spread=0.02):
    result = copy.deepcopy(RESULT)
    for entry in result["benchmarks"]:
        stats = entry["stats"]
        for key in ("median", "q1", "q3"):
            stats[key] *= 1.7  # a slow day is no change
        if entry["name"].startswith("test_landmarks[lotr_m-1-") and side.replace(" ", "-") in entry["name"]:
            stats |= {key: factor * stats[key] for key in ("median", "q1", "q3")}
            stats["q3"] = (1 + spread) * stats["median"]
    return result


@pytest.mark.parametrize(
    ("factor", "spread", "worse", "better"),
    [(1.0, 0.02, 0, 0), (1.08, 0.02, 0, 0), (1.3, 0.02, 1, 0), (0.7, 0.02, 0, 1), (1.3, 2.0, 0, 0)],
)
def test_ratios_that_got_worse_by_more_than_noise(factor, spread, worse, better):
    found = compare.changes(run(), run(changed(factor, spread=spread)))
    assert (sum(c.worse for c in found), sum(c.better for c in found)) == (worse, better)
    text = compare.in_words(found)
    assert f"{worse} worse, {better} better" in text
    assert ("WORSE  landmarks batch=1 model=lotr_m: onnxruntime int8 / eager fp32" in text) == bool(worse)


def test_other_machines_are_not_compared():
    other = copy.deepcopy(RESULT)
    other["machine_info"]["facelm"]["threads"] = 8
    with pytest.raises(typer.BadParameter, match="differ in threads"):
        compare.changes(run(), run(other))


def invoke(function, *arguments):
    app = typer.Typer()
    app.command()(function)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_scripts(write, tmp_path):
    old, new = write("old.json", RESULT), write("new.json", changed(1.5))
    assert invoke(report, old).stdout == markdown(run())
    page, text = tmp_path / "run.html", tmp_path / "run.md"
    assert invoke(report, old, "-o", page, "-o", text).exit_code == 0
    assert text.read_text() == markdown(run()) and page.read_text().startswith("<!doctype html>")
    assert invoke(report, old, "-o", tmp_path / "run.pdf").exit_code == 2
    assert [invoke(report, other, "--compare", old).exit_code for other in (old, new)] == [0, 1]
