"""facelm-export, and the same as facelm export."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint

import onnx
import pytest
import typer
from typer.testing import CliRunner

from facelm_export import cli, exporter
from facelm_models import list_models
from facelm_sdk import cli as sdk_cli
from facelm_sdk.session import OrtSession


@pytest.fixture(params=["facelm-export", "facelm export"])
def run(request, monkeypatch):
    if request.param == "facelm-export":
        app, before = typer.Typer(), []
        app.command()(cli.export_command)
    else:
        entry = EntryPoint("export", "facelm_export.cli:export_command", sdk_cli.PLUGIN_GROUP)
        monkeypatch.setattr(sdk_cli, "entry_points", lambda group: [entry])
        app, before = typer.Typer(), ["export"]
        app.callback()(lambda: None)
        sdk_cli.add_plugins(app)
    return lambda *arguments: CliRunner().invoke(app, before + [str(argument) for argument in arguments])


@pytest.fixture
def traced(monkeypatch, exported):
    """Tracing gives a graph traced before; the parity check is left to the tests of the pipeline."""

    files = {None: exported("lotr_m").path, 4: exported("lotr_m", batch=4).path}
    seen = []

    def load(fused, spec, **options):
        seen.append({"flip": spec.flip, "precision": spec.precision, **options})
        return onnx.load(files[options["batch"]])

    monkeypatch.setattr(exporter, "to_onnx", load)
    return seen


def test_default_output(run, traced, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("--model", "lotr_m", "--weights", weights("lotr_m"))
    assert result.exit_code == 0, result.output
    assert OrtSession(tmp_path / "lotr_m_fp32.onnx").spec.name == "lotr_m"
    assert "lotr_m_fp32.onnx" in result.stdout and "parity with PyTorch fp32: max 0.0" in result.stdout
    assert "lotr_m_fp32.report.json" in result.stdout
    assert traced == [{"flip": False, "precision": "fp32", "batch": None, "opset": 18}]


def test_options_reach_the_export(run, traced, tmp_path):
    options = ("--fp16", "--flip", "--batch", 4, "--random", "--opset", 20, "-o", tmp_path)
    result = run("-m", "lotr_m", *options)
    assert result.exit_code == 0, result.output
    assert traced == [{"flip": True, "precision": "fp16", "batch": 4, "opset": 20}]
    report = json.loads((tmp_path / "lotr_m_flip_b4_fp16.report.json").read_text())
    assert report["batch"] == 4 and report["flip"] and report["weights_sha256"] is None
    spec = OrtSession(tmp_path / "lotr_m_flip_b4_fp16.onnx").spec
    assert spec.data == "none: untrained weights, for latency work only"


def test_half_is_fp16(run, traced, weights, tmp_path):
    assert run("-m", "lotr_m", "--half", "--random", "-o", tmp_path / "x.onnx").exit_code == 0
    assert traced[0]["precision"] == "fp16" and (tmp_path / "x.onnx").is_file()


def test_list(run):
    result = run("--list")
    assert result.exit_code == 0
    assert result.stdout.split() == list_models()
    assert {"lotr_m", "slpt_hrnet18", "retinaface_r50"} <= set(list_models())


def test_no_model(run):
    result = run("--random")
    assert result.exit_code == 2
    assert "--model is missing" in result.output and "lotr_m" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "lotr_x"), "Did you mean 'lotr_m'?"),
        (("--model", "lotr_m", "--random", "--out", "model.pt"), "ending in .onnx, not model.pt"),
        (("--model", "lotr_m", "--weights", "none.safetensors"), "no weights file none.safetensors"),
        (("--model", "retinaface_mnet025", "--flip"), "is a detector"),
        (("--model", "lotr_m", "--opset", "9"), "opset is 17 to 22"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(run, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.output.startswith("error: ") and message in result.output
    assert "Traceback" not in result.output


def test_missing_packages_say_what_to_type(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    result = run("--model", "lotr_m")
    assert result.exit_code == 2
    assert 'pip install "facelm-sdk[export,cpu]"' in result.output


def test_unknown_option(run):
    assert run("--nonsense").exit_code == 2


def test_the_script(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["facelm-export", "--list"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    assert "lotr_m" in capsys.readouterr().out
