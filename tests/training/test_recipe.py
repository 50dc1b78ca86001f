"""Recipe files: those of the package are sound, and what is wrong in one is told."""

from __future__ import annotations

import pytest

from facelm_models import create, info
from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError, UnknownModelError
from facelm_training.objectives import OBJECTIVES
from facelm_training.recipe import DetectionRecipe, LandmarkRecipe, crop_recipe, names, read

STAGE = '[[stages]]\nname = "one"\nschedule = { steps = 5 }\n'


def written(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", names())
def test_the_packaged_recipes_can_be_run(name):
    recipe = read(name)
    if isinstance(recipe, DetectionRecipe):
        assert info(recipe.model).task == "detection"
        return
    assert recipe.objective in OBJECTIVES
    crop_recipe(recipe, 128)
    for stage in recipe.stages:
        create(recipe.model, num_landmarks=markups.get(recipe.markup).num_points, size=stage.size, **recipe.options)
    assert recipe.stages[-1].network == "full"
    assert recipe.summary != "not stated"


def test_entries_reach_the_recipe(tmp_path):
    text = """
    model = "lotr_m"
    markup = "wflw98"
    options = { layers = 1 }
    crop = { kind = "box", side = "min", scale = 1.05, shift = [0.0, -0.12] }
    weights = { siamese = 1 }
    augmentation = { degrees = 30, uniform = true }
    [[stages]]
    name = "one"
    size = 128
    schedule = { epochs = 3, drops = [0.5, 0.75], optimiser = "lamb" }
    """
    recipe = read(written(tmp_path, text))
    assert isinstance(recipe, LandmarkRecipe)
    stage = recipe.stages[0]
    assert (stage.size, stage.schedule.epochs, stage.schedule.drops) == (128, 3, (0.5, 0.75))
    assert recipe.augmentation.degrees == 30.0 and isinstance(recipe.augmentation.degrees, float)
    crop = crop_recipe(recipe, 64)
    assert (crop.kind, crop.side, crop.scale, crop.shift, crop.size) == ("box", "min", 1.05, (0.0, -0.12), 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STAGE, "does not say which model"),
        ('model = "lotr_m"', "lacks stages"),
        ('model = "lotr_m"\nstages = []', "no \\[\\[stages\\]\\]"),
        (f'model = "lotr_m"\nspeed = 3\n{STAGE}', "unknown entries speed; known: model, stages"),
        (f'model = "lotr_m"\nseed = "x"\n{STAGE}', "seed must be int, not 'x'"),
        (f'model = "lotr_m"\nseed = true\n{STAGE}', "seed must be int, not True"),
        (f'model = "lotr_m"\nobjective = "wing"\n{STAGE}', "objective is one of coordinates, .* not 'wing'"),
        (
            'model = "lotr_m"\n[[stages]]\nname = "a"\nschedule = { steps = 5, rat = 1 }',
            r"stages\[0\]: schedule has unknown",
        ),
        ('model = "lotr_m"\nstages = 3', "stages must be a list"),
        ('model = "retinaface_mnet025"\nfaces = [1.0]\nschedule = { steps = 5 }', "faces must have 2 values, not 1"),
        ("model = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(written(tmp_path, text))


def test_unknown_models_and_files(tmp_path):
    with pytest.raises(UnknownModelError, match="lotr_m"):
        read(written(tmp_path, f'model = "lotr_x"\n{STAGE}'))
    with pytest.raises(InputError, match=r"packaged recipe; those are .*lotr_m"):
        read("no_such_recipe")
