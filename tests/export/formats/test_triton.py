"""Model repositories for Triton Inference Server, against Triton's own schema and the checks of its ONNX backend."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from facelm_export import export
from facelm_export.formats.triton import model_files
from facelm_sdk import zoo
from facelm_sdk.contract import ModelSpec, PipelineSpec
from facelm_sdk.errors import InputError, OutputError
from facelm_sdk.files import write_files
from facelm_sdk.runtimes.onnxruntime import OrtSession

NUMPY = {"TYPE_UINT8": "tensor(uint8)", "TYPE_FP32": "tensor(float)"}
PIPELINE = """<ir_version: 8, opset_import: ["": 18]>
    pipeline (uint8[H, W, 3] image) => (float[k, 4] boxes, float[k, 68, 2] landmarks)
    { boxes = Constant<value: tensor = float[1, 4] {0, 0, 1, 1}>()
      landmarks = Identity(boxes) }"""


def model_config(text):
    """The parsed configuration. The schema's file alone: the package around it wants grpc."""
    client = pytest.importorskip("tritonclient")
    text_format = pytest.importorskip("google.protobuf.text_format")
    path = Path(client.__file__).parent / "grpc" / "model_config_pb2.py"
    found = importlib.util.spec_from_file_location("model_config_pb2", path)
    schema = importlib.util.module_from_spec(found)
    found.loader.exec_module(schema)
    return text_format.Parse(text, schema.ModelConfig()), schema


def shape(sizes):
    return [size if isinstance(size, int) else -1 for size in sizes]


def check_as_triton_does(text, data):
    """What Triton and its ONNX backend check when they load a model (core's and the backend's validation)."""
    config, schema = model_config(text)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    batch = [-1] if config.max_batch_size else []
    for ports, nodes in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [port.name for port in ports] == [node.name for node in nodes]
        for port, node in zip(ports, nodes, strict=True):
            assert NUMPY[schema.DataType.Name(port.data_type)] == node.type
            dims = port.reshape.shape if port.HasField("reshape") else port.dims
            assert [*batch, *dims] == shape(node.shape)
            assert port.dims and all(size == -1 or size > 0 for size in port.dims)
            assert ports is config.output or not port.format or len(port.dims) == 3
    assert config.HasField("dynamic_batching") == (config.max_batch_size > 1)
    return config, schema


def packaged(name):
    path = zoo.resolve(name).path
    return path.read_bytes(), OrtSession(path).spec


def written(root, data, spec, max_batch=16):
    """Writes the files; the configuration and what the report says."""
    made, facts = model_files(root, data, spec, max_batch)
    for path, content in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (config,) = (path for path in made if path.name == "config.pbtxt")
    return config.read_text("utf-8"), facts["triton"]


def tree(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["lotr_m", "retinaface_mnet025"])
def test_the_configuration_fits_schema_and_model(tmp_path, name):
    data, spec = packaged(name)
    text, facts = written(tmp_path, data, spec)
    config, schema = check_as_triton_does(text, data)
    assert sorted(tree(tmp_path)) == [f"{name}/1/model.onnx", f"{name}/config.pbtxt"]
    assert (tmp_path / name / "1" / "model.onnx").read_bytes() == data
    assert (config.name, config.backend) == (name, "onnxruntime")
    (group,) = config.instance_group
    assert group.kind == schema.ModelInstanceGroup.KIND_AUTO and group.count == 1 and not group.gpus
    assert facts == {"model": name, "version": 1, "max_batch_size": config.max_batch_size}


def test_landmarks_are_batched_by_the_server(tmp_path):
    data, spec = packaged("lotr_m")
    config, schema = check_as_triton_does(written(tmp_path, data, spec, max_batch=24)[0], data)
    assert config.max_batch_size == 24
    assert list(config.input[0].dims) == [192, 192, 3] and list(config.output[0].dims) == [68, 2]
    assert config.input[0].format == schema.ModelInput.FORMAT_NHWC
    assert 0 < config.dynamic_batching.max_queue_delay_microseconds <= 1000
    assert all(size <= 24 for size in config.dynamic_batching.preferred_batch_size)


def test_a_detector_takes_pictures_of_any_size(tmp_path):
    data, spec = packaged("retinaface_mnet025")
    config, _ = check_as_triton_does(written(tmp_path, data, spec)[0], data)
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [1, -1, -1, 3]
    assert {port.name: list(port.dims) for port in config.output} == {
        "boxes": [-1, 4],
        "scores": [-1],
        "kps": [-1, 5, 2],
    }


def test_the_configuration_carries_the_contract(tmp_path):
    data, spec = packaged("lotr_m")
    spec = replace(spec, licence='é "quoted" \\ back\nline', data="<a> # 'b'")
    config, _ = model_config(written(tmp_path, data, spec)[0])
    assert ModelSpec.from_json(config.parameters["facelm"].string_value) == spec
    assert config.parameters["cudnn_conv_algo_search"].string_value in ("0", "1", "2")


def test_scores_are_an_output(tmp_path, landmark_model, landmark_spec):
    data = landmark_model(has_scores=True).read_bytes()
    config, _ = check_as_triton_does(written(tmp_path, data, landmark_spec(has_scores=True))[0], data)
    assert {port.name: list(port.dims) for port in config.output} == {"landmarks": [68, 2], "scores": [68]}


def test_presence_is_an_output_of_one_value_a_crop(tmp_path, landmark_model, landmark_spec):
    data = landmark_model(has_presence=True).read_bytes()
    config, _ = check_as_triton_does(written(tmp_path, data, landmark_spec(has_presence=True))[0], data)
    presence = config.output[1]
    assert presence.name == "presence" and list(presence.dims) == [1]
    assert presence.HasField("reshape") and list(presence.reshape.shape) == []


def test_a_fixed_batch_is_not_the_servers(tmp_path, landmark_model, landmark_spec):
    data = landmark_model(batch=4).read_bytes()
    config, _ = check_as_triton_does(written(tmp_path, data, landmark_spec())[0], data)
    assert (config.name, config.max_batch_size) == ("tiny_b4", 0)
    assert list(config.input[0].dims) == [4, 32, 32, 3] and list(config.output[0].dims) == [4, 68, 2]


def test_a_whole_pipeline(tmp_path, landmark_spec):
    data = onnx.parser.parse_model(PIPELINE).SerializeToString()
    crop = landmark_spec().crop
    spec = PipelineSpec(name="faces+points", markup="ibug68", num_landmarks=68, crop=crop, det_thresh=0.5, det_size=320)
    config, schema = model_config(written(tmp_path, data, spec)[0])
    assert (config.name, config.max_batch_size, config.HasField("dynamic_batching")) == ("faces_points", 0, False)
    assert list(config.input[0].dims) == [-1, -1, 3] and config.input[0].format == schema.ModelInput.FORMAT_NHWC
    assert [list(port.dims) for port in config.output] == [[-1, 4], [-1, 68, 2]]


def test_other_results_have_another_name(tmp_path, landmark_model, landmark_spec):
    data = landmark_model().read_bytes()
    variants = {"tiny": {}, "tiny_fp16": {"precision": "fp16"}, "tiny_flip_int8": {"flip": True, "precision": "int8"}}
    for name, values in variants.items():
        assert written(tmp_path, data, landmark_spec(**values))[1]["model"] == name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(variants)


def test_a_new_file_is_a_new_version(tmp_path, landmark_model, landmark_spec):
    old, new = landmark_model(data="old").read_bytes(), landmark_model(data="new").read_bytes()
    assert old != new
    assert written(tmp_path, old, landmark_spec(data="old"))[1]["version"] == 1
    assert written(tmp_path, old, landmark_spec(data="old"))[1]["version"] == 1, "the same file"
    (tmp_path / "tiny" / "configs").mkdir()
    text, facts = written(tmp_path, new, landmark_spec(data="new"))
    assert facts["version"] == 2
    assert (tmp_path / "tiny" / "1" / "model.onnx").read_bytes() == old
    assert (tmp_path / "tiny" / "2" / "model.onnx").read_bytes() == new
    assert ModelSpec.from_json(model_config(text)[0].parameters["facelm"].string_value).data == "new"
    assert written(tmp_path, old, landmark_spec(data="old"))[1]["version"] == 3, "back to the old one"


@pytest.mark.parametrize("config", ['name: "tiny"\nbackend: "tensorrt"\n', None])
def test_anothers_model_of_that_name_is_left_alone(tmp_path, landmark_model, landmark_spec, config):
    theirs = tmp_path / "tiny" / "1" / "model.plan"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    if config:
        (tmp_path / "tiny" / "config.pbtxt").write_text(config)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"tiny is there already and is another model"):
        written(tmp_path, landmark_model().read_bytes(), landmark_spec())
    assert tree(tmp_path) == before


def test_a_version_of_other_outputs_is_refused(tmp_path, landmark_model, landmark_spec):
    written(tmp_path, landmark_model().read_bytes(), landmark_spec())
    with pytest.raises(InputError, match="has other inputs and outputs"):
        written(tmp_path, landmark_model(markup="wflw98").read_bytes(), landmark_spec(markup="wflw98"))


def test_a_models_folder_is_no_repository(tmp_path, landmark_model, landmark_spec):
    written(tmp_path, landmark_model().read_bytes(), landmark_spec())
    with pytest.raises(InputError, match="is the folder of one model; give the model repository"):
        written(tmp_path / "tiny", landmark_model().read_bytes(), landmark_spec())


def test_the_export_adds_a_model_to_a_repository(traced, tmp_path):
    repository = tmp_path / "repository"
    theirs = repository / "resnet50" / "config.pbtxt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text('name: "resnet50"')
    done = export("lotr_m", format="triton", max_batch=8, out=repository, latency=False)
    data = (repository / "lotr_m" / "1" / "model.onnx").read_bytes()
    config, _ = check_as_triton_does((repository / "lotr_m" / "config.pbtxt").read_text("utf-8"), data)
    assert config.max_batch_size == 8
    assert ModelSpec.from_json(config.parameters["facelm"].string_value) == done.spec == OrtSession(data).spec
    assert theirs.read_text() == 'name: "resnet50"'
    report = json.loads(done.report_path.read_text())
    assert report["triton"] == {"model": "lotr_m", "version": 1, "max_batch_size": 8}
    crops = np.zeros((2, 192, 192, 3), np.uint8)
    assert OrtSession(data).run({"crops": crops})[0].shape == (2, *config.output[0].dims)


def test_a_place_that_cannot_be_written_keeps_no_half_model(tmp_path, landmark_model, landmark_spec, monkeypatch):
    repository = tmp_path / "repository"
    theirs = repository / "resnet50" / "config.pbtxt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text('name: "resnet50"')
    replace_file = Path.replace

    def full(path, target):
        if Path(target).name == "config.pbtxt":
            raise OSError(28, "No space left on device")
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", full)
    made, _ = model_files(repository, landmark_model().read_bytes(), landmark_spec(), 16)
    with pytest.raises(OutputError, match="No space left on device"):
        write_files(made)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "repository",
        "repository/resnet50",
        "repository/resnet50/config.pbtxt",
    ]
