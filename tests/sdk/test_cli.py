"""The facelm command."""

from __future__ import annotations

import json
import runpy
import sys
from importlib.metadata import EntryPoint

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from facelm_sdk import cli
from facelm_sdk.cli import doctor as doctoring
from facelm_sdk.cli import plugins
from facelm_sdk.errors import InputError, MissingDependencyError


@pytest.fixture
def models(landmark_model, detector_model):
    return ["--model", str(landmark_model()), "--detector", str(detector_model())]


@pytest.fixture
def folder(tmp_path, scene):
    """Two faces, one face, none, and a text file named .jpg; two of them of one stem."""
    source = tmp_path / "pictures"
    (source / "more").mkdir(parents=True)
    cv2.imwrite(str(source / "a.png"), scene(640, 480, (50, 50, 250, 260), (400, 100, 600, 300)))
    cv2.imwrite(str(source / "a.jpg"), scene(640, 480, (50, 50, 250, 260)))
    cv2.imwrite(str(source / "more" / "a.png"), np.zeros((40, 40, 3), np.uint8))
    (source / "broken.jpg").write_text("not a picture")
    (source / "notes.txt").write_text("not even named like one")
    return source


def invoke(*args):
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_folder_run(folder, models, tmp_path):
    out = tmp_path / "out"
    result = invoke("align", folder, "-o", out, "--draw", "--crops", 112, *models)
    assert result.exit_code == 1
    assert "broken.jpg: not a picture" in result.stderr.replace(str(folder / "broken.jpg") + ": ", "", 1)
    assert "1 of 4 pictures failed" in result.stderr
    assert [line.partition(": ")[2][:8] for line in result.stdout.splitlines()] == [
        "face 1/1",
        "face 1/2",
        "face 2/2",
        "no face",
    ]
    assert files(out) == [
        *("a.jpg", "a.json", "a_2.jpg", "a_2.json"),
        *("crops/a_0.png", "crops/a_2_0.png", "crops/a_2_1.png"),
        *("more/a.jpg", "more/a.json"),
    ]
    record = json.loads((out / "a_2.json").read_text())
    assert record["source"].endswith("a.png") and (record["width"], record["height"]) == (640, 480)
    assert len(record["faces"]) == 2 and len(record["faces"][0]["landmarks"]) == 68
    assert record["model"] == "tiny" and record["detector"] == "bright"
    assert cv2.imread(str(out / "crops" / "a_0.png")).shape == (112, 112, 3)


def test_all_well_is_exit_code_0(folder, models, tmp_path):
    result = invoke("align", folder / "a.png", folder / "more", "-o", tmp_path / "out", "--quiet", *models)
    assert result.exit_code == 0 and result.stdout == ""
    assert files(tmp_path / "out") == ["a.json", "a_2.json"]


def test_globs_and_missing_files(folder, models):
    result = invoke("align", folder / "*.png", folder / "none*.png", folder / "gone.jpg", *models)
    assert result.exit_code == 1
    assert result.stdout.count("face ") == 2
    assert "none*.png: cannot read" in result.stderr and "gone.jpg: cannot read" in result.stderr


def test_json_lines(folder, models, tmp_path):
    lines = tmp_path / "all.jsonl"
    result = invoke("align", folder / "a.png", folder / "a.jpg", "--json-lines", lines, *models)
    assert result.exit_code == 0 and "face 1/2" in result.stdout
    assert [len(json.loads(line)["faces"]) for line in lines.read_text().splitlines()] == [2, 1]
    result = invoke("align", folder / "a.png", folder / "a.jpg", "--json-lines", "-", *models)
    assert [len(json.loads(line)["faces"]) for line in result.stdout.splitlines()] == [2, 1]


def test_inputs_are_never_overwritten(folder, models):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    invoke("align", folder, "-o", folder, "--draw", *models)
    assert all(path.read_bytes() == data for path, data in before.items())
    assert "a_faces.jpg" in files(folder)


def test_results_of_an_earlier_run_are_not_inputs(folder, models):
    out = folder / "out"
    invoke("align", folder, "-o", out, "--draw", *models)
    first = files(out)
    invoke("align", folder, "-o", out, "--draw", *models)
    assert files(out) == first
    assert not [name for name in first if name.endswith(".tmp")]


def test_workers_change_nothing(folder, models):
    alone = invoke("align", folder, "-o", folder / "one", "--workers", 1, *models)
    many = invoke("align", folder, "-o", folder / "four", "--workers", 4, *models)
    assert (many.exit_code, many.stdout) == (alone.exit_code, alone.stdout)
    assert files(folder / "four") == files(folder / "one")
    assert isinstance(invoke("align", folder, "--workers", 0, *models).exception, InputError)


def test_options_reach_the_models(folder, models):
    picture = folder / "a.png"
    assert invoke("align", picture, "--max-faces", 1, *models).stdout.count("face ") == 1
    assert invoke("align", picture, "--det-thresh", 0.85, *models).stdout.count("face ") == 1
    assert invoke("align", picture, "--det-size", "320x320", *models).stdout.count("face ") == 2
    assert isinstance(invoke("align", picture, "--det-size", "big", *models).exception, InputError)
    assert "not in int8: leave variant out" in str(invoke("align", picture, "--variant", "int8", *models).exception)
    assert invoke("align", picture, "--precision", "fp32", *models).stdout.count("face ") == 2
    assert isinstance(invoke("align", picture, "--draw", *models).exception, InputError)
    assert isinstance(invoke("align", picture, "--crops", 0, "-o", folder / "o", *models).exception, InputError)


def test_errors_are_one_line_and_exit_code_2(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["facelm", "align", str(folder / "a.png"), "--model", "nonesuch.onnx"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.strip() == "error: no model file nonesuch.onnx"


def test_a_variant_that_is_none(folder, models, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["facelm", "align", str(folder / "a.png"), "--precision", "fp16", *models])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.strip() == "error: variant is auto, fp32 or int8, not 'fp16'"


def test_empty_folder(tmp_path, models):
    assert "no pictures in" in str(invoke("align", tmp_path, *models).exception)


@pytest.fixture
def embedded(embed, landmark_model):
    return embed(landmark_model(data="drawn by hand", licence="CC0", accuracy={"nme": 4.2}))


def test_models(embedded):
    text = invoke("models").stdout
    for part in ("tiny", "landmarks, crops of 32 px", "ibug68 (68 points)", "fp32", "drawn by hand", "CC0", "nme 4.2"):
        assert part in text
    (row,) = json.loads(invoke("models", "--json").stdout)
    assert row["sha256"] == embedded["sha256"] and row["crop"]["size"] == 32


def test_version():
    assert invoke("--version").stdout.startswith("facelm-sdk ")


def by_name(result):
    return {check["name"]: check for check in json.loads(result.stdout)}


def test_doctor(embedded):
    checks = by_name(invoke("doctor", "--json"))
    assert checks["CPUExecutionProvider"] == {"name": "CPUExecutionProvider", "detail": "works", "ok": True}
    assert checks["tiny, fp32"]["ok"] and "usable of" in checks["CPU threads"]["detail"]
    assert "tiny" in invoke("doctor").stdout


def test_doctor_finds_rival_wheels(embedded, monkeypatch):
    known = {"onnxruntime": "1.20.0", "onnxruntime-gpu": "1.19.0", "opencv-python": "4.9"}
    monkeypatch.setattr(doctoring, "_installed", known.get)
    result = invoke("doctor", "--json")
    checks = by_name(result)
    assert result.exit_code == 1
    assert not checks["onnxruntime wheels"]["ok"]
    assert "onnxruntime 1.20.0, onnxruntime-gpu 1.19.0 overwrite each other" in checks["onnxruntime wheels"]["detail"]
    assert checks["OpenCV wheels"]["ok"]


def test_doctor_without_onnxruntime_and_opencv(embedded, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    result = invoke("doctor", "--json")
    checks = by_name(result)
    assert result.exit_code == 1
    assert not checks["onnxruntime"]["ok"] and "pip install" in checks["onnxruntime"]["detail"]
    assert not checks["OpenCV"]["ok"]
    assert "facelm-sdk[cpu]" in invoke("doctor").stdout.replace("\n", "")


def test_doctor_finds_damaged_models(embedded, tmp_path):
    (tmp_path / "tiny.onnx").write_bytes(b"")
    result = invoke("doctor", "--json")
    assert result.exit_code == 1 and "sha256" in by_name(result)["tiny, fp32"]["detail"]


def plugin(monkeypatch, loaded):
    """A CLI with one command from outside; returns it and the list of what was imported."""
    loads = []

    class Entry(EntryPoint):
        def load(self):
            loads.append(self.name)
            if isinstance(loaded, Exception):
                raise loaded
            return loaded

    entry = Entry("greet", "other_package.cli:greet", plugins.PLUGIN_GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    app = typer.Typer()
    app.command("own")(lambda: None)
    app.command("two")(lambda: None)
    plugins.add_plugins(app)
    return app, loads


def greet(name: str = typer.Option("you"), loud: bool = False) -> None:
    """Say hello."""
    typer.echo(f"hello {name}{'!' if loud else ''}")


def as_typer():
    app = typer.Typer()
    app.command()(greet)
    return app


@pytest.mark.parametrize("loaded", [greet, as_typer(), typer.main.get_command(as_typer())], ids=["f", "typer", "click"])
def test_plugins_are_listed_but_loaded_only_when_asked_for(monkeypatch, loaded):
    app, loads = plugin(monkeypatch, loaded)
    help_text = CliRunner().invoke(app, ["--help"]).stdout
    assert "greet" in help_text and "other_package" in help_text
    assert CliRunner().invoke(app, ["own"]).exit_code == 0
    assert loads == []
    result = CliRunner().invoke(app, ["greet", "--name", "me", "--loud"])
    assert result.stdout == "hello me!\n" and result.exit_code == 0
    assert "Say hello" in CliRunner().invoke(app, ["greet", "--help"]).stdout
    assert CliRunner().invoke(app, ["greet", "--nonsense"]).exit_code == 2


def test_plugin_without_its_packages(monkeypatch):
    app, _ = plugin(monkeypatch, ModuleNotFoundError("No module named 'torch'"))
    error = CliRunner().invoke(app, ["greet"]).exception
    assert isinstance(error, MissingDependencyError)
    assert "No module named 'torch'" in str(error) and 'facelm-sdk[greet]"' in str(error)


def test_python_m(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["facelm", "--version"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("facelm_sdk", run_name="__main__")
    assert stopped.value.code == 0 and capsys.readouterr().out.startswith("facelm-sdk ")
