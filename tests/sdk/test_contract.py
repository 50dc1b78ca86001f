"""ModelSpec: round trip, and each way a contract can be wrong."""

from __future__ import annotations

import json

import pytest

from facelm_sdk.contract import FORMAT_VERSION, ModelSpec
from facelm_sdk.errors import ContractError
from facelm_sdk.transform import CropRecipe


def detection(**values):
    return ModelSpec(task="detection", name="d", markup="kps5", num_landmarks=5, **{"det_thresh": 0.5, **values})


def test_round_trip(landmark_spec):
    specs = [
        landmark_spec(flip=True, has_scores=True, precision="fp16", data="made up", licence="MIT", weights_sha256="ab"),
        landmark_spec(crop=CropRecipe(64, "box", scale=1.2), parity={"max_px": 0.01}, accuracy={"nme": 4.0}),
        landmark_spec(multiply_adds=0.128),
        detection(created_by="0.1.0"),
    ]
    for spec in specs:
        assert ModelSpec.from_json(spec.to_json()) == spec


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
        ({"crop": None}, "needs a crop recipe"),
        ({"crop": {"size": 1}}, "template"),
        ({"extra": 1}, "unknown entries: extra"),
    ],
)
def test_contract_errors(landmark_spec, values, message):
    with pytest.raises(ContractError, match=message):
        ModelSpec.from_json(changed(landmark_spec(), **values))


def test_missing_entries_are_named(landmark_spec):
    values = json.loads(landmark_spec().to_json())
    del values["licence"], values["flip"]
    with pytest.raises(ContractError, match="lacks flip, licence"):
        ModelSpec.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_not_a_json_object(text):
    with pytest.raises(ContractError, match="JSON"):
        ModelSpec.from_json(text)


def test_detection_needs_its_threshold():
    with pytest.raises(ContractError, match="det_thresh"):
        detection(det_thresh=None)
