"""A run folder is trained by one recipe: another is refused, and what may change is told."""

from __future__ import annotations

import dataclasses
import json

import pytest

from facelm_sdk.errors import InputError
from facelm_training.loop import Schedule
from facelm_training.objectives import CoordinatesWeights
from facelm_training.recipe import DetectionRecipe, LandmarkRecipe, Stage
from facelm_training.run_folder import claim

RECIPE = LandmarkRecipe(
    "lotr_m",
    (
        Stage("pooled", Schedule(steps=10), "pooled", 96),
        Stage("full-96", Schedule(steps=20), "full", 96),
        Stage("full-128", Schedule(steps=30), "full", 128),
    ),
)
DATA = "wflw:/data/WFLW"


def changed(recipe=RECIPE, stage=None, **values):
    """A recipe with other entries, of itself, of a stage or of a stage's schedule."""
    if stage is None:
        return dataclasses.replace(recipe, **values)
    stages = list(recipe.stages)
    names = {field.name for field in dataclasses.fields(Schedule)}
    own = {key: values.pop(key) for key in list(values) if key in names}
    schedule = dataclasses.replace(stages[stage].schedule, **own)
    stages[stage] = dataclasses.replace(stages[stage], schedule=schedule, **values)
    return dataclasses.replace(recipe, stages=tuple(stages))


def begin(folder, *done, in_progress=None, recipe=RECIPE):
    """A folder in which stages are done and one has begun."""
    claim(folder, recipe, DATA).take()
    for name in (*done, *([in_progress] if in_progress else [])):
        (folder / name).mkdir()
        (folder / name / "last.pt").touch()
    for name in done:
        (folder / name / "done.pt").touch()
    return folder


def test_the_same_recipe_resumes(tmp_path):
    folder = begin(tmp_path / "run", "pooled", in_progress="full-96")
    before = (folder / "recipe.json").read_text()
    claim(folder, RECIPE, DATA).take()
    assert (folder / "recipe.json").read_text() == before
    assert json.loads(before)["recipe"]["stages"][1]["schedule"]["steps"] == 20


@pytest.mark.parametrize(
    ("recipe", "data", "limit", "message"),
    [
        (changed(weights=CoordinatesWeights(loss="l1")), DATA, None, r'weights\.loss "smooth_wing" -> "l1"'),
        (changed(backbone="imagenet.pth"), DATA, None, 'backbone "" -> "imagenet.pth"'),
        (changed(options={"layers": 3}), DATA, None, r"options\.layers \(none\) -> 3"),
        (changed(stage=1, rate=0.5), DATA, None, r"stages\[1\]\.schedule\.rate 0\.001 -> 0\.5"),
        (RECIPE, "wflw:/data/other", None, 'data "wflw:/data/WFLW" -> "wflw:/data/other"'),
        (RECIPE, DATA, 5, "limit null -> 5"),
    ],
)
def test_another_recipe_is_refused(tmp_path, recipe, data, limit, message):
    folder = begin(tmp_path / "run", "pooled", in_progress="full-96")
    with pytest.raises(InputError, match=f"trained by another recipe: {message}.*another --out; --changed goes on"):
        claim(folder, recipe, data, limit)


def test_before_a_stage_has_begun_the_folder_is_free(tmp_path):
    folder = begin(tmp_path / "run")
    claim(folder, changed(seed=3), DATA).take()
    assert json.loads((folder / "recipe.json").read_text())["recipe"]["seed"] == 3


@pytest.mark.parametrize(
    "recipe",
    [
        changed(stage=1, steps=50, rate=2e-3, drops=(0.5,), batch=8),
        changed(stage=2, size=192, optimiser="lamb", name="full-192"),
        changed(stages=RECIPE.stages[:2]),
        changed(stages=(*RECIPE.stages, Stage("more", Schedule(steps=5), "full", 192))),
        changed(summary="other words", evaluate_every=7),
    ],
)
def test_what_a_run_can_go_on_with(tmp_path, recipe):
    folder = begin(tmp_path / "run", "pooled", in_progress="full-96")
    with pytest.raises(InputError, match="another recipe"):
        claim(folder, recipe, DATA)
    claim(folder, recipe, DATA, changed=True).take()
    claim(folder, recipe, DATA)  # is the folder's now
    assert (folder / "pooled" / "done.pt").is_file()


@pytest.mark.parametrize(
    ("recipe", "entry"),
    [
        (changed(stage=0, steps=50), r"stages\[0\]\.schedule\.steps"),
        (changed(stage=1, optimiser="adam"), r"stages\[1\]\.schedule\.optimiser"),
        (changed(stage=1, size=128), r"stages\[1\]\.size"),
        (changed(markup="wflw98"), "markup"),
        (changed(weights=CoordinatesWeights(loss="l1")), r"weights\.loss"),
    ],
)
def test_what_no_run_goes_on_with(tmp_path, recipe, entry):
    folder = begin(tmp_path / "run", "pooled", in_progress="full-96")
    with pytest.raises(InputError, match=f"cannot go on with another {entry}, .*another --out"):
        claim(folder, recipe, DATA, changed=True)


def test_a_run_that_is_over_is_prolonged(tmp_path):
    folder = begin(tmp_path / "run", "pooled", "full-96", "full-128")
    with pytest.raises(InputError, match="full-128 is done; it goes on with more steps or epochs only"):
        claim(folder, changed(stage=2, rate=0.5), DATA, changed=True)
    claim(folder, changed(stage=2, steps=90), DATA, changed=True).take()
    assert not (folder / "full-128" / "done.pt").exists() and (folder / "full-128" / "last.pt").exists()
    assert (folder / "full-96" / "done.pt").exists()


def test_a_detector_has_one_stage(tmp_path):
    recipe = DetectionRecipe("retinaface_mnet025", Schedule(steps=10))
    folder = begin(tmp_path / "run", in_progress="train", recipe=recipe)
    claim(folder, dataclasses.replace(recipe, schedule=Schedule(steps=20)), DATA, changed=True).take()
    with pytest.raises(InputError, match="cannot go on with another sizes"):
        claim(folder, dataclasses.replace(recipe, sizes=(128,)), DATA, changed=True)


def test_a_folder_that_does_not_tell_its_recipe(tmp_path):
    folder = begin(tmp_path / "run", in_progress="pooled")
    (folder / "recipe.json").unlink()
    with pytest.raises(InputError, match=r"holds a run \(pooled\) and does not tell its recipe"):
        claim(folder, RECIPE, DATA)
    claim(folder, RECIPE, DATA, changed=True).take()
    claim(folder, RECIPE, DATA)


def test_a_folder_of_an_older_version_resumes(tmp_path):
    """Entries that it does not hold are those it was trained by."""
    folder = begin(tmp_path, "pooled", in_progress="full-96")
    record = json.loads((folder / "recipe.json").read_text())
    for stage in record["recipe"]["stages"]:
        assert stage["schedule"].pop("accumulate") == 1
    (folder / "recipe.json").write_text(json.dumps(record))
    claim(folder, RECIPE, DATA)
    with pytest.raises(InputError, match="accumulate"):
        claim(folder, changed(stage=1, accumulate=2), DATA)


def test_several_data_sets_are_one_entry(tmp_path):
    claim(tmp_path, RECIPE, [DATA, "300w:/data/300W"]).take()
    begin(tmp_path, in_progress=None)
    claim(tmp_path, RECIPE, [DATA, "300w:/data/300W"]).take()
    (tmp_path / "pooled").mkdir()
    (tmp_path / "pooled" / "last.pt").touch()
    with pytest.raises(InputError, match="data"):
        claim(tmp_path, RECIPE, DATA)
