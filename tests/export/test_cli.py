"""facelm-export, and the same as facelm export."""

from __future__ import annotations

import errno
import json
import os
import runpy
import subprocess
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import onnx
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from facelm_export import Exported, cli, exporter, pipeline
from facelm_models import create, list_models
from facelm_models.weights import save
from facelm_sdk.cli import plugins
from facelm_sdk.errors import InputError
from facelm_sdk.runtimes.onnxruntime import OrtSession


@pytest.fixture(params=["facelm-export", "facelm export"])
def run(request, monkeypatch):
    if request.param == "facelm-export":
        app, before = cli.app, []
    else:
        entry = EntryPoint("export", "facelm_export.cli:app", plugins.PLUGIN_GROUP)
        monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
        app, before = typer.Typer(), ["export"]
        app.callback()(lambda: None)
        plugins.add_plugins(app)
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
    assert "lotr_m_fp32.report.md" in result.stdout
    assert "latency: 1 thread, batch 1: " in result.stdout
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


@pytest.fixture
def asked(monkeypatch):
    """What the export is asked for, which is not done."""
    calls = []

    def export(model, **options):
        calls.append({"model": model, **options, "progress": None})
        raise InputError("enough")

    monkeypatch.setattr(exporter, "export", export)
    return calls


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--half", {"precision": "fp16"}),
        ("--dtype fp16", {"precision": "fp16"}),
        ("--precision fp16 --fp16", {"precision": "fp16"}),
        ("--int8 --target cpu --calib faces", {"precision": "int8", "target": "cpu", "calib": Path("faces")}),
        ("--int8 --format engine", {"precision": "int8", "target": None, "format": "engine"}),
        ("--batch-size 4 --opset 20", {"batch": 4, "opset": 20}),
        ("--dynamic --max-batch 8", {"max_batch": 8}),
        ("--imgsz 192 --atol 0.1 --no-latency", {"imgsz": 192, "atol": 0.1, "latency": False}),
        ("--output out/ --format openvino", {"out": "out/", "format": "openvino"}),
    ],
)
def test_names_of_other_exporters_options(run, asked, arguments, expected):
    """Those of ultralytics (half, int8, dynamic, imgsz, batch, format) and of optimum (dtype, atol, opset)."""
    assert "enough" in run("-m", "lotr_m", *arguments.split()).output
    (options,) = asked
    assert {name: options[name] for name in expected} == expected
    if "batch" not in expected:
        assert "batch" not in options


def test_int8_is_two_files_where_no_runtime_is_named(run, monkeypatch):
    made = []

    def export(model, **options):
        made.append((options["precision"], options["target"], options["out"]))
        report = {"bytes": 1, "nodes": 1, "parity": {"max_px": 0.0, "p99_px": 0.0}}
        return Exported(Path(f"{options['target']}.onnx"), Path("x.report.json"), None, report)

    monkeypatch.setattr(exporter, "export", export)
    result = run("-m", "lotr_m", "--int8", "-o", "a/x.onnx")
    assert made == [("int8", "cpu", "a/x.onnx"), ("int8", "tensorrt", "a/x_trt.onnx")]
    assert "cpu.onnx" in result.stdout and "tensorrt.onnx" in result.stdout
    made.clear()
    run("-m", "lotr_m", "--int8", "-o", "folder/")
    assert made == [("int8", "cpu", "folder/"), ("int8", "tensorrt", "folder/")]


@pytest.mark.parametrize("words", [["pipeline"], ["--pipeline"]])
def test_pipeline(run, monkeypatch, words):
    seen = []

    def export_pipeline(**options):
        seen.append({key: value for key, value in options.items() if key != "progress"})
        raise InputError("enough")

    monkeypatch.setattr(pipeline, "export_pipeline", export_pipeline)
    common = {"precision": "fp32", "flip": False, "latency": True, "out": None}
    assert "enough" in run(*words).output
    run(
        *words,
        "--model",
        "lotr_m",
        "--half",
        "--det-size",
        "640x480",
        "--det-thresh",
        0.5,
        "--weights",
        "w.safetensors",
    )
    run("--det-size", "320", *words[:0], "--detector", "retinaface_r50", "--pipeline")
    assert seen == [
        common,
        {
            **common,
            "precision": "fp16",
            "model": "lotr_m",
            "det_size": (640, 480),
            "det_thresh": 0.5,
            "weights": Path("w.safetensors"),
        },
        {**common, "det_size": 320, "detector": "retinaface_r50"},
    ]


def test_commands_refuse_each_others_options(run):
    for arguments in (("pipeline", "--batch", "2"), ("--pipeline", "--random"), ("-m", "lotr_m", "--det-size", "320")):
        result = run(*arguments)
        assert result.exit_code == 2 and "No such option" in result.output
    result = run("--model", "lotr_m", "pipeline")
    assert result.exit_code == 2 and "options come after the command" in result.output


def test_help_is_in_groups(run):
    text = run("--help").output
    for panel in ("Model", "Precision", "Format", "Checks", "Output", "Commands"):
        assert f"─ {panel} ─" in text
    assert "─ Detector ─" in run("pipeline", "--help").output


def test_list(run):
    result = run("--list")
    assert result.exit_code == 0
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert list(rows) == list_models()
    assert rows["lotr_m_128"].startswith("weights  68 points  128 px  NME ")
    assert rows["retinaface_mnet025"].startswith("weights") and "recall" in rows["retinaface_mnet025"]
    assert rows["slpt_resnet34"] == "no weights: --weights FILE, or --random"


def test_list_needs_no_torch():
    code = "import sys; sys.argv = ['facelm-export', '--list']\nfrom facelm_export.cli import main\n"
    code += "try: main()\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lotr_m_128" in done.stdout


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
        (
            ("--model", "mtld_r50"),
            "give a weights file (--weights FILE), or take untrained ones for latency work (--random)",
        ),
        (("--model", "lotr_m", "--fp16", "--int8"), "one precision; fp16 and int8 were asked for"),
        (("--model", "lotr_m", "--half", "--dtype", "fp32"), "one precision; fp16 and fp32 were asked for"),
        (("--model", "lotr_m", "--dtype", "bf16"), "not 'bf16'"),
        (
            ("--model", "lotr_m", "--batch", "4", "--dynamic"),
            "--batch fixes the number of crops, --dynamic leaves it open",
        ),
        (("--model", "lotr_m", "--calib", "."), "--calib is for --int8"),
        (
            ("--model", "lotr_m", "--format", "tflite"),
            "format is one of onnx, engine, openvino, triton, web, not 'tflite'",
        ),
        (("--model", "lotr_m", "--target", "gpu"), "target is one of cpu, tensorrt, not 'gpu'"),
        (("--model", "lotr_m", "--imgsz", "256"), "lotr_m takes crops of 192 pixels, not 256"),
        (("--model", "retinaface_mnet025", "--imgsz", "640"), "takes pictures of any size: leave out imgsz"),
        (("--model", "retinaface_mnet025", "--batch", "2"), "batch is for landmark models"),
        (("--model", "lotr_m", "--atol", "0"), "atol is a number of pixels above 0"),
        (("--pipeline", "--det-size", "big"), "--det-size is a long side in pixels or WIDTHxHEIGHT, not big"),
        (("--model", "x", "--import", "nonesuch.py"), "--import nonesuch.py failed: FileNotFoundError"),
        (
            ("--model", "x", "--import", "nonesuch_module"),
            "failed: ModuleNotFoundError: No module named 'nonesuch_module'",
        ),
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


def test_weights_of_another_architecture_or_markup(run, tmp_path):
    save(tmp_path / "fan.safetensors", create("fan2", size=64, stacks=1, dim=32), {})
    wflw = create("lotr_m", num_landmarks=98)
    save(tmp_path / "wflw.safetensors", wflw, {})
    save_file({key: value.contiguous() for key, value in wflw.state_dict().items()}, tmp_path / "plain.safetensors")
    torch.save(wflw.state_dict(), tmp_path / "mine.pth")
    for name, messages in {
        "fan.safetensors": [
            "these weights are of a FAN, but lotr_m is a LOTR; give one of that kind (--model fan2 or fan2_s or fan4)"
        ],
        "wflw.safetensors": ["of 98 points, but ibug68 has 68: give their markup (--markup wflw98)"],
        "plain.safetensors": ["shape of queries: (1, 98, 64), not (1, 68, 64)", "another markup or variant, say which"],
        "mine.pth": [
            "not a .safetensors file",
            "(--from on the command line): fan, hrnet",
            "facelm_models.weights.save",
        ],
    }.items():
        result = run("-m", "lotr_m", "--weights", tmp_path / name)
        assert result.exit_code == 2 and all(message in result.output for message in messages), result.output


def test_a_place_that_cannot_be_written_is_told_before_the_work(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(exporter, "build", None)
    result = run("-m", "lotr_m", "-o", tmp_path / "file" / "x.onnx")
    assert result.exit_code == 2 and "x.onnx cannot be written: " in result.output and "is a file" in result.output
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    result = run("-m", "lotr_m", "-o", tmp_path)
    assert result.exit_code == 2 and "no permission to write in" in result.output


def test_a_full_disk_leaves_nothing(run, traced, weights, tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(path, data):
        if len(data) > 2**20:
            write(path, data[: 2**20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    out = tmp_path / "new" / "x.onnx"
    # The draft of the parity check, in the system's own temporary folder, is not what is tested.
    monkeypatch.setattr(exporter, "_proven", lambda spec, *args: spec)
    result = run("-m", "lotr_m", "--weights", weights("lotr_m"), "--no-latency", "-o", out)
    assert result.exit_code == 2 and "x.onnx cannot be written: No space left on device" in result.output
    assert list(tmp_path.iterdir()) == []


def test_the_weights_are_not_written_over(run, traced, weights, tmp_path):
    before = weights("lotr_m").read_bytes()
    (tmp_path / "x.report.md").symlink_to(weights("lotr_m"))
    result = run("-m", "lotr_m", "--weights", weights("lotr_m"), "-o", tmp_path / "x.onnx")
    assert result.exit_code == 2 and "would be written over what is read" in result.output
    assert weights("lotr_m").read_bytes() == before and traced == []


@pytest.mark.parametrize("step", ["tracing", "writing"])
def test_an_interrupt_leaves_no_half_file(run, traced, weights, tmp_path, monkeypatch, step):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    if step == "tracing":
        monkeypatch.setattr(exporter, "to_onnx", interrupt)
    else:
        monkeypatch.setattr(exporter, "_proven", lambda spec, *args: spec)
        monkeypatch.setattr(Path, "replace", interrupt)  # all drafts are there, none in its place
    result = run("-m", "lotr_m", "--weights", weights("lotr_m"), "--no-latency", "-o", tmp_path / "new" / "x.onnx")
    assert result.exit_code == 130 and "interrupted; no half file is left" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "message"), [(None, "pip install tensorrt"), ("8.6.1", "8.6.1 is too old; 10.0 or newer is needed")]
)
def test_tensorrt_that_is_absent_or_too_old_is_told_before_the_work(run, monkeypatch, version, message):
    fake = None if version is None else types.ModuleType("tensorrt")
    if fake is not None:
        fake.__version__ = version
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr(exporter, "build", None)
    result = run("-m", "lotr_m", "--format", "engine")
    assert result.exit_code == 2 and message in result.output and "pip install" in result.output


def test_import_of_a_file_that_fails(run, tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0")
    result = run("--import", tmp_path / "broken.py", "-m", "x")
    assert result.exit_code == 2 and "failed: ZeroDivisionError" in result.output


def test_unknown_option(run):
    assert run("--nonsense").exit_code == 2


def test_the_script(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["facelm-export", "--list"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    assert "lotr_m" in capsys.readouterr().out


def test_python_m(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["facelm-export", "--list"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("facelm_export", run_name="__main__")
    assert stopped.value.code == 0 and "lotr_m" in capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("format", "whose"), [("onnx", "parity"), ("triton", "parity"), ("engine", "parity of its ONNX graph")]
)
def test_parity_is_said_of_the_graph_that_was_compared(run, monkeypatch, format, whose):
    def export(model, **options):
        report = {"bytes": 1, "nodes": 7, "format": format, "parity": {"max_px": 0.0, "p99_px": 0.0}}
        return Exported(Path("x"), Path("x.report.json"), None, report)

    monkeypatch.setattr(exporter, "export", export)
    assert f"7 nodes, {whose} with PyTorch fp32: max 0.0000" in run("-m", "lotr_m").stdout
