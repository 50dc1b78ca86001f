"""What facelm inspect tells of model files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct

import numpy as np
import pytest
from typer.testing import CliRunner

from facelm_sdk import cli
from facelm_sdk.cli.inspect import crop_in_words, indices_in_words, rows
from facelm_sdk.errors import InputError, ModelFileError
from facelm_sdk.inspect import inspect_model
from facelm_sdk.transform import CropRecipe


def inspect(*arguments):
    return CliRunner().invoke(cli.app, ["inspect", *map(str, arguments)], env={"COLUMNS": "200"})


def said(path):
    return dict(rows(inspect_model(path)))


@pytest.fixture
def foreign(tmp_path):
    import onnx
    from onnx import parser

    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18], producer_name: "somebody">
        other (float[batch, 3, 112, 112] data) => (float[batch, 3, 112, 112] fc1) { fc1 = Relu(data) }"""
    )
    onnx.save(model, tmp_path / "foreign.onnx")
    return tmp_path / "foreign.onnx"


def test_a_landmark_model(landmark_model):
    crop = CropRecipe(size=32, kind="box", scale=1.2, shift=(0.0, -0.12))
    path = landmark_model(
        crop=crop, has_scores=True, flip=True, data="drawn by hand", licence="CC0", parity={"max_px": 0.001}
    )
    facts = inspect_model(path)
    assert facts["kind"] == "ONNX model" and facts["bytes"] == path.stat().st_size
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["inputs"] == [{"name": "crops", "dtype": "uint8", "shape": ["n", 32, 32, 3]}]
    assert [(value["name"], value["dtype"]) for value in facts["outputs"]] == [
        ("landmarks", "float32"),
        ("scores", "float32"),
    ]
    assert facts["contract"]["markup"] == "ibug68" and facts["contract"]["crop"]["scale"] == 1.2
    text = said(path)
    assert text["model"] == "tiny, landmarks, fp32"
    assert text["markup"].startswith("ibug68, 68 points: jaw 0-16; brows 17-26")
    assert text["input"] == "crops uint8 (n, 32, 32, 3): BGR pixels, raw"
    assert text["crop"] == (
        "square of 1.2 x the longer side of the detector's box, centred on it, moved by 0 of its width and -0.12 of "
        "its height, resized to 32 px"
    )
    trained = said(landmark_model(crop=CropRecipe(size=32, kind="box", box="landmarks", scale=1.2)))
    assert "1.2 x the longer side of the landmarks' box (made of the five points), centred" in trained["crop"]
    assert text["flip averaging"] == "inside the graph" and "feed pixels as they are" in text["inside"]
    assert text["data"] == "drawn by hand" and text["licence"] == "CC0" and text["parity"] == "max_px 0.001"
    assert text["sha256"] == facts["sha256"]


def test_a_fixed_batch_is_shown(landmark_model):
    assert said(landmark_model(batch=4))["input"] == "crops uint8 (4, 32, 32, 3): BGR pixels, raw"


def test_a_detector(detector_model):
    text = said(detector_model())
    assert text["input"] == "image uint8 (1, H, W, 3): BGR pixels, raw"
    assert text["det thresh"] == "0.5" and "crop" not in text and "flip averaging" not in text


def test_on_the_terminal_nothing_is_cut_off(landmark_model):
    path = landmark_model()
    result = CliRunner().invoke(cli.app, ["inspect", str(path)], env={"COLUMNS": "60"})
    assert result.exit_code == 0 and "…" not in result.stdout
    joined = "".join(line.strip() for line in result.stdout.splitlines())
    assert hashlib.sha256(path.read_bytes()).hexdigest() in joined


def test_json_for_machines(landmark_model, detector_model, tmp_path):
    result = inspect("--json", landmark_model(), tmp_path / "none.onnx", detector_model())
    assert result.exit_code == 1 and "no file" in result.stderr
    first, second, third = json.loads(result.stdout)
    assert first["contract"]["task"] == "landmarks" and third["contract"]["task"] == "detection"
    assert "no file" in second["error"]


def test_an_embedded_model(embed, landmark_model):
    embed(landmark_model(data="drawn by hand"))
    assert said("tiny")["data"] == "drawn by hand"


def test_a_foreign_model(foreign):
    facts = inspect_model(foreign)
    assert facts["contract"] is None and "facelm-export did not make this file" in facts["note"]
    assert facts["inputs"] == [{"name": "data", "dtype": "float32", "shape": ["batch", 3, 112, 112]}]
    result = inspect(foreign)
    assert result.exit_code == 0
    for part in ("data float32 (batch, 3, 112, 112)", "fc1 float32", "somebody", "no 'facelm' contract inside"):
        assert part in result.stdout


def test_contracts_that_this_version_does_not_read(landmark_model, landmark_spec):
    newer = json.dumps({**json.loads(landmark_spec().to_json()), "format_version": 99})
    facts = inspect_model(landmark_model(metadata=newer))
    assert facts["contract"] is None and "upgrade facelm-sdk" in facts["note"] and facts["inputs"]
    wrong = landmark_spec(size=64).to_json()
    facts = inspect_model(landmark_model(metadata=wrong))
    assert "its contract says crops" in facts["note"] and facts["inputs"][0]["shape"][1] == 32


def test_an_engine_is_told_of_by_its_card(tmp_path, landmark_spec):
    engine = tmp_path / "tiny.engine"
    engine.write_bytes(b"opaque")
    assert "no tiny.engine.json beside it" in said(engine)["note"]
    card = {"flavour": "tensorrt", "version": "11.0", "gpu": "NVIDIA L4", "spec": json.loads(landmark_spec().to_json())}
    (tmp_path / "tiny.engine.json").write_text(json.dumps(card))
    text = said(engine)
    assert text["kind"] == "TensorRT engine" and text["gpu"] == "NVIDIA L4"
    assert text["input"] == "crops uint8 (n, 32, 32, 3): BGR pixels, raw" and text["model"] == "tiny, landmarks, fp32"
    (tmp_path / "tiny.engine.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"tiny\.engine\.json is damaged"):
        inspect_model(engine)


def test_openvino(tmp_path, landmark_spec):
    from xml.sax.saxutils import quoteattr

    path = tmp_path / "tiny.xml"
    path.write_text(f"<net><rt_info><facelm value={quoteattr(landmark_spec().to_json())} /></rt_info></net>")
    text = said(path)
    assert text["kind"] == "OpenVINO IR" and text["model"] == "tiny, landmarks, fp32"
    assert text["weights"] == "tiny.bin is missing"
    path.with_suffix(".bin").write_bytes(b"12345")
    assert said(path)["weights"] == "tiny.bin, 5 bytes"
    path.write_text("<net></net>")
    assert "did not make this file" in said(path)["note"]
    path.write_text("<net>")
    with pytest.raises(ModelFileError, match="truncated or not OpenVINO's XML"):
        inspect_model(path)


def test_a_triton_repository(tmp_path, landmark_model):
    model = tmp_path / "served" / "tiny"
    for version in (1, 2, 10):
        (model / str(version)).mkdir(parents=True)
        (model / str(version) / "model.onnx").write_bytes(landmark_model(data=f"version {version}").read_bytes())
    (model / "config.pbtxt").write_text('name: "tiny"\nbackend: "onnxruntime"\nmax_batch_size: 16\n')
    facts = inspect_model(tmp_path / "served")
    (served,) = facts["models"]
    assert facts["kind"] == "Triton model repository" and served["contract"]["data"] == "version 10"
    assert served["details"] == {"backend": "onnxruntime", "max_batch_size": "16", "versions": ["1", "2", "10"]}
    assert inspect_model(model)["models"][0]["file"] == "tiny"
    result = inspect(tmp_path / "served")
    assert "Triton model repository" in result.stdout and "max batch size" in result.stdout
    with pytest.raises(InputError, match=r"there is no \*/config\.pbtxt in it"):
        inspect_model(tmp_path)


def safetensors(tensors, metadata=None):
    """A file's bytes from names, shapes and float32 data."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, value in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(value.shape),
            "data_offsets": [len(data), len(data) + value.nbytes],
        }
        data += value.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_weights(tmp_path):
    path = tmp_path / "net.safetensors"
    tensors = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float32)}
    card = {"architecture": "LOTR", "markup": "ibug68", "config": {"size": 192}, "accuracy": {"nme": 4.2}}
    path.write_bytes(safetensors(tensors, {"facelm": json.dumps(card)}))
    text = said(path)
    assert text["architecture"] == "LOTR" and text["config"] == "size 192" and text["accuracy"] == "nme 4.2"
    assert text["tensors"] == "2" and text["parameters"] == "10"
    path.write_bytes(safetensors(tensors))
    assert "does not say which network it is of" in said(path)["note"]


@pytest.mark.parametrize("keep", [4, 20, -8])
def test_truncated_weights(tmp_path, keep):
    path = tmp_path / "net.safetensors"
    path.write_bytes(safetensors({"a": np.zeros((2, 3), np.float32)})[:keep])
    with pytest.raises(ModelFileError, match=r"net\.safetensors is truncated"):
        inspect_model(path)


@pytest.mark.parametrize(
    "header",
    [
        {"a": 5},
        {"a": {"shape": [2]}},
        {"a": {"shape": [2], "data_offsets": []}},
        {"a": {"shape": [2], "data_offsets": [0, None]}},
        {"a": {"shape": "22", "data_offsets": [0, 8]}},
        {"a": {"shape": [-1], "data_offsets": [0, 8]}},
        {"a": {"shape": [10**30], "data_offsets": [0, 8]}},
        {"a": {"shape": [1] * 1000, "data_offsets": [0, 8]}},
        {"__metadata__": 5},
        {"__metadata__": {"facelm": 5}},
        {"__metadata__": {"facelm": "5"}},
        {"__metadata__": {"facelm": "[" * 100_000}},
        {"__metadata__": {"facelm": '{"a": "\\ud800"}'}},
    ],
)
def test_headers_that_are_none(tmp_path, header):
    path, text = tmp_path / "net.safetensors", json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(ModelFileError, match=r"net\.safetensors is damaged"):
        inspect_model(path)


def test_odd_triton_repositories(tmp_path, landmark_model):
    config = tmp_path / "config.pbtxt"
    config.write_bytes(b'backend: "\xff"')
    with pytest.raises(ModelFileError, match=r"config\.pbtxt is damaged: it is not UTF-8"):
        inspect_model(tmp_path)
    config.write_text('backend: "onnxruntime"')
    for version in ("2", "010", "\u00b2", "9" * 200):
        (tmp_path / version).mkdir()
    (tmp_path / ("9" * 200) / "model.onnx").write_bytes(landmark_model(data="the newest").read_bytes())
    (served,) = inspect_model(tmp_path)["models"]
    assert served["contract"]["data"] == "the newest" and served["details"]["versions"] == ["2", "010", "9" * 200]


def test_a_configuration_that_is_a_folder(tmp_path):
    (tmp_path / "tiny" / "config.pbtxt").mkdir(parents=True)
    with pytest.raises(InputError, match="not the folder of a Triton repository"):
        inspect_model(tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody_of_this_name/x.onnx", "a\0.onnx"])
def test_names_of_no_file(name):
    with pytest.raises(ModelFileError, match=f"no file|cannot be read: {os.strerror(errno.ENAMETOOLONG)}"):
        inspect_model(name)


@pytest.mark.parametrize("model", [None, 5, b"x.onnx"])
def test_what_is_no_name(model):
    with pytest.raises(InputError, match="a model is a name or a path"):
        inspect_model(model)


def test_files_that_are_none(tmp_path):
    (tmp_path / "x.onnx").write_text("not a model")
    with pytest.raises(ModelFileError, match="truncated or not an ONNX model"):
        inspect_model(tmp_path / "x.onnx")
    (tmp_path / "x.pth").write_text("")
    with pytest.raises(InputError, match=r"accepted are \.onnx, \.engine, \.xml, \.safetensors"):
        inspect_model(tmp_path / "x.pth")
    result = inspect(tmp_path / "gone.onnx")
    assert result.exit_code == 2 and "error: no file" in result.stderr


def test_words():
    assert indices_in_words((3, 0, 1, 2, 7, 9, 10)) == "0-3, 7, 9-10"
    recipe = CropRecipe(size=64, template=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10.25)))
    text = crop_in_words(recipe.to_dict())
    assert text.startswith("square of 64 px by five points") and text.endswith("(7.0, 8.0), (9.0, 10.2)")


@pytest.mark.parametrize(("file", "report"), [("x.onnx", "x.report.md"), ("x.engine", "x.engine.report.md")])
def test_the_report_beside_it_is_named(tmp_path, landmark_model, landmark_spec, file, report):
    (tmp_path / file).write_bytes(landmark_model().read_bytes())
    (tmp_path / "x.engine.json").write_text(json.dumps({"gpu": None, "spec": json.loads(landmark_spec().to_json())}))
    assert "report" not in said(tmp_path / file)
    (tmp_path / report).write_text("")
    assert said(tmp_path / file)["report"] == report and "gpu" not in said(tmp_path / file)
