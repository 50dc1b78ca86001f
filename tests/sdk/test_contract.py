"""Contracts: round trip, each way one can be wrong, and the check of a graph against it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from facelm_sdk import zoo
from facelm_sdk.contract import (
    FORMAT_VERSION,
    DetectorSpec,
    LandmarkSpec,
    ModelSpec,
    OutputCheck,
    PipelineSpec,
    Tensor,
    Tensors,
    check,
)
from facelm_sdk.errors import ContractError
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.transform import CropRecipe


def detection(**values):
    return DetectorSpec(name="d", **{"det_thresh": 0.5, **values})


def pipeline(**values):
    given = {"name": "p", "markup": "kps5", "num_landmarks": 5, "crop": CropRecipe(64, "box")}
    return PipelineSpec(**{**given, "det_thresh": 0.5, "det_size": "auto", **values})


def test_round_trip(landmark_spec):
    specs = [
        landmark_spec(flip=True, has_scores=True, precision="fp16", data="made up", licence="MIT", weights_sha256="ab"),
        landmark_spec(crop=CropRecipe(64, "box", scale=1.2), parity={"max_px": 0.01}, accuracy={"nme": 4.0}),
        landmark_spec(multiply_adds=0.128),
        landmark_spec(has_scores=True, has_presence=True),
        detection(created_by="0.1.0"),
        pipeline(has_scores=True),
        pipeline(det_size=(320, 256)),
    ]
    for spec in specs:
        assert ModelSpec.from_json(spec.to_json()) == spec
        assert type(ModelSpec.from_json(spec.to_json())) is type(spec)


def test_presence_is_written_only_where_there_is_one(landmark_spec):
    plain, present = landmark_spec(), landmark_spec(has_presence=True)
    assert "has_presence" not in plain.to_dict() and list(plain.tensors.outputs) == ["landmarks"]
    assert present.to_dict()["has_presence"] is True
    assert present.tensors.outputs["presence"] == Tensor("float32", (None,))
    with pytest.raises(ContractError, match="a contract for pipeline has no has_presence"):
        ModelSpec.from_json(json.dumps({**pipeline().to_dict(), "has_presence": True}))


def test_files_of_the_package_read_as_their_task():
    for entry in zoo.list_models():
        spec = OrtSession(zoo.resolve(entry.name, variant=entry.precision).path).spec
        assert isinstance(spec, LandmarkSpec if entry.task == "landmarks" else DetectorSpec)
        assert spec.task == entry.task and spec.precision == entry.precision


def test_entries_of_other_tasks_are_neutral_and_in_order(landmark_spec):
    first = ["task", "name", "markup", "num_landmarks", "crop", "has_scores", "flip", "precision", "det_thresh"]
    values = detection().to_dict()
    assert list(values)[:9] == first and list(landmark_spec().to_dict()) == list(values)
    assert (values["markup"], values["num_landmarks"], values["crop"], values["flip"]) == ("kps5", 5, None, False)
    assert "det_size" in pipeline().to_dict()


def changed(spec, **values):
    return json.dumps({**json.loads(spec.to_json()), **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format_version": FORMAT_VERSION + 1}, "format_version 2.*reads 1.*upgrade"),
        ({"format_version": 0}, "format_version 0.*export it anew"),
        ({"format_version": None}, "format_version None"),
        ({"task": "poetry"}, "unknown task 'poetry'"),
        ({"task": 3}, "task = 3"),
        ({"markup": "ibug70"}, "no markup 'ibug70'"),
        ({"num_landmarks": 98}, "ibug68 has 68 points"),
        ({"num_landmarks": "68"}, "num_landmarks = '68'"),
        ({"has_scores": 1}, "has_scores = 1"),
        ({"multiply_adds": "many"}, "multiply_adds = 'many'"),
        ({"num_landmarks": True}, "num_landmarks = True"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"crop": None}, "needs a value of crop"),
        ({"crop": {"size": 64.5, "kind": "box"}}, "size of at least 1 pixel, not 64.5"),
        ({"crop": {"size": 64, "kind": "box", "scale": 10**400}}, "not a crop recipe"),
        ({"crop": {"size": 64, "kind": "box", "scale": float("inf")}}, "not a crop recipe"),
        ({"crop": {"size": 64, "kind": "box", "shift": [0, float("nan")]}}, "not a crop recipe"),
        ({"crop": {"size": 64, "template": [[float("nan"), 0]] * 5}}, "template"),
        ({"det_thresh": 0.5}, "a contract for landmarks has no det_thresh"),
        ({"task": "detection"}, "a contract for detection has no crop, markup, num_landmarks"),
        ({"task": "pipeline"}, "a contract for pipeline needs a value of det_thresh, det_size"),
        ({"task": "pipeline", "det_thresh": 2, "det_size": "auto"}, "det_thresh is a score from 0 to 1, not 2"),
        ({"task": "pipeline", "det_thresh": 0.5, "det_size": [1, 2, 3]}, "det_size is 'auto'"),
        ({"task": "pipeline", "det_thresh": 0.5, "det_size": "big"}, "det_size is 'auto'"),
        ({"parity": {"a": [[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]}}, "nested deeper"),
        ({"name": "\ud800"}, "surrogates not allowed"),
        ({"crop": {"size": 1}}, "template"),
        ({"extra": 1}, "unknown entries: extra"),
    ],
)
def test_contract_errors(landmark_spec, values, message):
    with pytest.raises(ContractError, match=message):
        ModelSpec.from_json(changed(landmark_spec(), **values))


def test_a_contract_deeper_than_the_stack():
    with pytest.raises(ContractError, match="nested deeper than 16"):
        ModelSpec.from_json("[" * 100_000)


def test_missing_entries_are_named(landmark_spec):
    values = json.loads(landmark_spec().to_json())
    del values["licence"], values["flip"]
    with pytest.raises(ContractError, match="lacks flip, licence"):
        ModelSpec.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, '{"a":' * 100_000])
def test_not_a_json_object(text):
    with pytest.raises(ContractError, match="JSON"):
        ModelSpec.from_json(text)


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.5, 10**400])
def test_detection_needs_a_threshold_that_is_a_score(value):
    with pytest.raises(ContractError, match="det_thresh"):
        detection(det_thresh=value)
    with pytest.raises(ContractError, match="det_thresh"):
        ModelSpec.from_json(changed(detection(), det_thresh=None))


CROPS = Tensor("uint8", ("n", 32, 32, 3))
POINTS = Tensor("float32", ("n", 68, 2))


@pytest.mark.parametrize(
    ("crops", "points", "agrees"),
    [
        (CROPS, POINTS, True),
        (Tensor("uint8", (4, 32, 32, 3)), Tensor("float32", (4, 68, 2)), True),  # a fixed number of crops
        (CROPS, Tensor("float32", None), True),  # shape inference gave up
        (CROPS, Tensor("float32", ("n", "L", 2)), True),
        (Tensor("uint8", None), POINTS, False),
        (Tensor("float32", CROPS.shape), POINTS, False),
        (Tensor("uint8", ("n", 64, 64, 3)), POINTS, False),
        (CROPS, Tensor("float16", POINTS.shape), False),
        (CROPS, Tensor("float32", ("n", 98, 2)), False),
        (CROPS, Tensor("float32", ("n", 136)), False),
    ],
)
def test_a_graph_is_checked_as_plain_data(landmark_spec, crops, points, agrees):
    found = Tensors({"crops": crops}, {"landmarks": points})
    if agrees:
        check(found, landmark_spec(), "x.onnx")
        return
    with pytest.raises(ContractError, match=r"x\.onnx has .*; its contract says"):
        check(found, landmark_spec(), "x.onnx")


def test_a_detectors_picture_must_stay_open():
    outputs = detection().tensors.outputs
    check(Tensors({"image": Tensor("uint8", (1, "H", "W", 3))}, outputs), detection(), "x")
    with pytest.raises(ContractError, match=r"x has inputs image uint8 \(1, 320, W, 3\)"):
        check(Tensors({"image": Tensor("uint8", (1, 320, "W", 3))}, outputs), detection(), "x")
    with pytest.raises(ContractError, match="x has outputs "):
        check(Tensors({"image": Tensor("uint8", (1, "H", "W", 3))}, {}), detection(), "x")


def test_what_a_run_gave(landmark_spec):
    check_run = OutputCheck(landmark_spec(), "x")
    check_run([np.zeros((3, 68, 2), np.float32)], 3)
    for bad in (np.zeros((2, 68, 2), np.float32), np.zeros((3, 68, 2)), np.zeros((3, 68), np.float32)):
        with pytest.raises(ContractError, match="x gave landmarks"):
            check_run([bad], 3)
    faces = [np.zeros((2, 4), np.float32), np.zeros(2, np.float32), np.zeros((2, 5, 2), np.float32)]
    check_run = OutputCheck(detection(), "x")
    check_run(faces, None)
    with pytest.raises(ContractError, match=r"gave boxes float32 \(1, 4\), .*; its contract .* float32 \(2, 4\)"):
        check_run([faces[0][:1], *faces[1:]], None)
    with pytest.raises(ContractError, match=r"scores float32 \(\), .*; its contract says .* scores float32 \(\?\)"):
        check_run([faces[0], faces[1][0], faces[2]], None)
