"""Recipe files: those of the package are sound, and what is wrong in one is told."""

from __future__ import annotations

import pytest
import torch

from facelm_models import create, info
from facelm_models.registry import decoder
from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError, UnknownModelError
from facelm_training.objectives import OBJECTIVES, WEIGHTS, CoordinatesWeights, HeatmapWeights
from facelm_training.recipe import DetectionRecipe, LandmarkRecipe, Stage, crop_recipe, names, read

LOTR = 'model = "lotr_m"\n'
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
    points = markups.get(recipe.markup).num_points
    for stage in recipe.stages:
        with torch.device("meta"):
            create(recipe.model, num_landmarks=points, size=stage.size, **recipe.options)
    assert recipe.stages[-1].network == ("confidence" if name.endswith("_confidence") else "full")
    assert recipe.summary != "not stated"


def test_entries_reach_the_recipe(tmp_path):
    text = """
    model = "lotr_m"
    markup = "wflw98"
    options = { layers = 1 }
    crop = { kind = "box", side = "min", scale = 1.05, shift = [0.0, -0.12] }
    weights = { loss = "wing", eye_weights = false }
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
    assert recipe.weights == CoordinatesWeights(loss="wing", eye_weights=False)
    assert recipe.augmentation.degrees == 30.0 and isinstance(recipe.augmentation.degrees, float)
    crop = crop_recipe(recipe, 64)
    assert (crop.kind, crop.side, crop.scale, crop.shift, crop.size) == ("box", "min", 1.05, (0.0, -0.12), 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STAGE, "does not say which model"),
        ('model = "lotr_m"', "lacks stages"),
        ('model = "lotr_m"\nstages = []', "no \\[\\[stages\\]\\]"),
        (
            f"{LOTR}weights = {{ structred = 9 }}\n{STAGE}",
            "weights has unknown .* structred; known: loss, unit, eye_weights",
        ),
        (
            f'model = "hourglass4"\nobjective = "structured"\nweights = {{ structred = 9 }}\n{STAGE}',
            "weights has unknown entries structred; known: structured, edges, points, alpha, epsilon, s, margin",
        ),
        (
            f'{LOTR}weights = {{ loss = "l3" }}\n{STAGE}',
            "loss is one of smooth_wing, wing, smooth_l1, l1, l2, not 'l3'",
        ),
        (f'{LOTR}weights = "l1"\n{STAGE}', "weights must be a table, not 'l1'"),
        (f'{LOTR}loss = "l1"\n{STAGE}', "unknown entries loss"),
        (f"{LOTR}weights = {{ eye_weights = 1 }}\n{STAGE}", "eye_weights must be bool, not 1"),
        (f"{LOTR}{STAGE}weights = {{ loss = 'l1' }}", r"stages\[0\]: a stage's weights are those of a warm-up's head"),
        (
            f"{LOTR}options = {{ msa = false }}\n{STAGE}",
            "options has unknown entries msa; lotr_m has backbone, upsampling",
        ),
        (f"{LOTR}options = {{ size = 64 }}\n{STAGE}", "options has unknown entries size; .* a stage's"),
        (f"{LOTR}options = {{ layers = 1.5 }}\n{STAGE}", "options: layers must be int, not 1.5"),
        (f'{LOTR}options = {{ backbone = "vgg" }}\n{STAGE}', "options: backbone is one of mobilenet_v2, resnet50"),
        (f"{LOTR}{STAGE}size = 100", "stage one: lotr_m cannot be built so: .* multiple of 32"),
        (f"{LOTR}{STAGE}size = 0", r"stages\[0\]: size is a finite number at least 1, not 0"),
        (f"{LOTR}{STAGE}{STAGE}", "stages are told apart by their names, which are one, one"),
        (f"{LOTR}{STAGE}".replace('"one"', '"../one"'), r"name is that of the stage's folder, not '\.\./one'"),
        *((f"{LOTR}{STAGE}".replace('"one"', f'"{name}"'), "the stage's folder") for name in ("", ".", "..")),
        (f'{LOTR}{STAGE}network = "pooled"', "the last stage, one, trains the pooled head .* add a stage"),
        (f'{LOTR}{STAGE}network = "heatmaps"', "the last stage, one, trains the heatmaps head"),
        (
            f'{LOTR}{STAGE}network = "heatmaps"\n{STAGE.replace("one", "two")}',
            "stage one: lotr_m has no features for a head to train",
        ),
        (f'{LOTR}crop = {{ kind = "circle" }}\n{STAGE}', "crop: kind is one of kps5, box, not 'circle'"),
        (f"{LOTR}crop = {{ scale = 1.2 }}\n{STAGE}", "crop: kind is one of kps5, box, not None"),
        (
            f'{LOTR}crop = {{ kind = "box", zoom = 1.2 }}\n{STAGE}',
            "crop has unknown entries zoom; known: kind, side, scale",
        ),
        (f'{LOTR}crop = {{ kind = "box", scale = -1 }}\n{STAGE}', "crop: scale is a finite number above 0, not -1"),
        (f'{LOTR}crop = {{ kind = "kps5", shift = [0, nan] }}\n{STAGE}', "crop: shift is a finite number, not nan"),
        (
            f"{LOTR}augmentation = {{ flip = 1.5 }}\n{STAGE}",
            "augmentation: flip is a .* at least 0 and at most 1, not 1.5",
        ),
        (f"{LOTR}held_out_part = 1\n{STAGE}", "held_out_part is a finite number at least 0 and below 1, not 1.0"),
        (f'{LOTR}held_out_part = 0.1\nval = "val"\n{STAGE}', "both val and held_out_part"),
        (f'{LOTR}held_out = "300w/train/afw:."\n{STAGE}', "sources and held_out go together"),
        (
            f'{LOTR}held_out = "a:b"\n{STAGE}[[sources]]\ndata = "a:b"\nweight = 0',
            r"sources\[0\]: weight is a finite number above 0, not 0.0",
        ),
        ('model = "mtld_r18"\nobjective = "mtld"\nweights = { neighbours = 68 }\n' + STAGE, "neighbours .* below 68"),
        (
            'model = "hourglass4"\nobjective = "structured"\nweights = { patch = 4 }\n' + STAGE,
            "weights: patch is an odd number of cells, not 4",
        ),
        *(
            (f"{LOTR}{STAGE}".replace("steps = 5", f"steps = 5, {entry}"), f"schedule: {message}")
            for entry, message in {
                "batch = 0": "batch is a finite number at least 1, not 0",
                "rate = nan": "rate is a finite number at least 0, not nan",
                "rate = -1.0": "rate is a finite number at least 0, not -1.0",
                "warmup = -5": "warmup is a finite number at least 0, not -5",
                "epochs = -5": "epochs is a finite number at least 0, not -5",
                "ema = 1.0": "ema is a finite number at least 0 and below 1, not 1.0",
                "drops = [0.5, 70.0]": "drops is a finite number at least 0 and at most 1, not 70.0",
                "clip = inf": "clip is a finite number at least 0, not inf",
                "epochs = 3": "a schedule has steps or epochs",
                f"batch = -1{'0' * 400}": "batch is a finite number at least 1, not -10",
                f"warmup = 1{'0' * 400}": "warmup is a finite number at least 0, not 10",
            }.items()
        ),
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
        ('model = "retinaface_mnet025"\nsizes = []\nschedule = { steps = 5 }', "sizes are sides of pictures"),
        ('model = "retinaface_mnet025"\nsure = 2.0\nschedule = { steps = 5 }', "sure is a .* at most 1, not 2.0"),
        ("model = ", "is not TOML"),
        (f"{LOTR}{STAGE}".replace("steps = 5", f"steps = 5, rate = 1{'0' * 400}"), "rate is a finite number, not 10"),
        ("model = " + "[" * 5000, "is not TOML"),
        ("seed = " + "1" * 5000, "is not TOML"),
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


def test_a_warm_up_has_weights_of_its_own(tmp_path):
    """Those of its head's objective; else the recipe's where they are of the same, else what is usual."""
    text = """
    model = "slpt_hrnet18"
    objective = "slpt"
    [[stages]]
    name = "maps"
    network = "heatmaps"
    weights = { scale = 100.0 }
    schedule = { steps = 5 }
    [[stages]]
    name = "full"
    schedule = { steps = 5 }
    """
    recipe = read(written(tmp_path, text))
    assert recipe.weights_of(recipe.stages[0]) == ("heatmap", HeatmapWeights(scale=100.0))
    assert recipe.weights_of(recipe.stages[1]) == ("slpt", WEIGHTS["slpt"]())
    with pytest.raises(InputError, match="weights has unknown entries points; known: scale, sigma, quantised, siamese"):
        read(written(tmp_path, text.replace("scale", "points")))
    pooled = Stage("pooled", recipe.stages[0].schedule, "pooled")
    for weights in (CoordinatesWeights(loss="l1"), None):
        mine = LandmarkRecipe("lotr_m", (pooled,), weights=weights)
        assert mine.weights_of(pooled) == ("coordinates", weights or CoordinatesWeights())


def test_weights_are_of_the_objective():
    with pytest.raises(InputError, match="weights of mtld are MTLDWeights"):
        LandmarkRecipe("mtld_r18", (), "mtld", weights=CoordinatesWeights())


FAN = 'model = "fan2"\nobjective = "heatmap"\n'
SOFT = 'model = "hourglass4"\nobjective = "soft_argmax"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{FAN}decoding = "soft"\n{STAGE}', "decoding: no decoding is named 'soft'; decodings: coordinates, argmax"),
        (f'{FAN}decoding = "local_soft_argmax:window=4"\n{STAGE}', "has an odd window and a temperature above 0"),
        (f"{FAN}options = {{ correction = true }}\n{STAGE}", 'and decoding = "corrected_argmax" go together'),
        (f'{FAN}decoding = "corrected_argmax"\n{STAGE}', 'and decoding = "corrected_argmax" go together'),
        (f"{SOFT}{STAGE}", 'are read by decoding = "soft_argmax:temperature=1"'),
        (
            f'{SOFT}decoding = "expectation"\nweights = {{ temperature = 5 }}\n{STAGE}',
            'are read by decoding = "soft_argmax:temperature=5"',
        ),
        (f"{LOTR}{STAGE}".replace("steps = 5", "steps = 5, batch = 32, accumulate = 5"), "a divisor of the batch"),
    ],
)
def test_decodings_that_do_not_fit_are_told(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(written(tmp_path, text))


def test_parameters_of_a_decoding_reach_the_recipe(tmp_path):
    from facelm_training.recipe import described

    recipe = read(written(tmp_path, f'{FAN}decoding = "local_soft_argmax:window=7,temperature=5"\n{STAGE}'))
    found = decoder(described(recipe).decoding)
    assert (found.window, found.temperature) == (7, 5.0)
    star = f'{SOFT}decoding = "expectation"\nweights = {{ loss = "star", reading = "expectation" }}\n{STAGE}'
    assert read(written(tmp_path, star)).decoding == "expectation"
