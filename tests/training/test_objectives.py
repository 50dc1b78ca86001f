"""The objectives of the papers: each lowers its loss on a network of its family, and its parts are what they say."""

from __future__ import annotations

import pytest
import torch

from facelm_models import create, info
from facelm_models.heatmaps import encode
from facelm_sdk import markup as markups
from facelm_training.landmarks import LandmarkTask, mean_shape
from facelm_training.loop import Schedule, train
from facelm_training.objectives import OBJECTIVES, fraction_maps
from facelm_training.recipe import LandmarkRecipe, Stage, crop_recipe

MARKUP = markups.get("ibug68")
FAMILIES = {
    "mtld_r18": ("mtld", {}, {}, 6),
    "slpt_resnet34": ("slpt", {"layers": 1, "dim": 64, "dropout": 0.0}, {}, 6),
    "fan2": ("heatmap", {"stacks": 1, "dim": 32}, {"scale": 100.0, "siamese": 1.0}, 8),
    "hourglass4": ("structured", {"stacks": 1, "dim": 32}, {"samples": 2.0}, 24),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_few_steps_lower_the_loss(faces, tmp_path, name):
    objective, options, weights, steps = FAMILIES[name]
    torch.manual_seed(0)
    size = 64
    stage = Stage("test", Schedule(steps=steps, batch=3, rate=1e-3, warmup=2, ema=0.0), "full", size)
    recipe = LandmarkRecipe(name, (stage,), objective, weights=weights)
    model = create(name, size=size, **options)
    shape = mean_shape(crop_recipe(recipe, size), faces, info(name).offset)
    for buffer_name, buffer in model.named_buffers():
        if buffer_name == "mean_shape":
            buffer.copy_(shape)

    class OneBatch(LandmarkTask):
        def batch(self, step):
            return super().batch(0)

    task = OneBatch(model, recipe, stage, faces, faces)
    batch = task.batch(0)
    torch.manual_seed(0)
    before = {key: value.item() for key, value in task.loss(batch).items()}
    train(task, stage.schedule, tmp_path)
    task.model.train()
    torch.manual_seed(0)
    after = {key: value.item() for key, value in task.loss(batch).items()}
    assert sum(after.values()) < 0.97 * sum(before.values()), (before, after)


def test_the_weights_weigh(faces):
    stage = Stage("test", Schedule(steps=1, batch=2), "full", 64)
    model = create("mtld_r18", size=64).eval()
    task = LandmarkTask(model, LandmarkRecipe("mtld_r18", (stage,), "mtld"), stage, faces, faces)
    batch = task.batch(0)
    one, other = (
        OBJECTIVES["mtld"](model, batch, MARKUP, {"points": 1.0, "heatmaps": 1.0, "structure": factor})
        for factor in (1.0, 3.0)
    )
    assert other["structure"].item() == pytest.approx(3 * one["structure"].item(), rel=1e-4)
    assert other["points"].item() == pytest.approx(one["points"].item(), rel=1e-4)


def test_maps_of_fractions_are_maps_of_pixels():
    matrix = torch.tensor([[[0.9, -0.2, 7.0], [0.3, 1.1, -4.0]]])
    pixels = torch.tensor([[10.0, 20.0]])
    moved = pixels @ matrix[0, :, :2].T + matrix[0, :, 2]
    fractions = fraction_maps(matrix, 96)[0]
    expected = (moved + 0.5) / 96
    torch.testing.assert_close(((pixels + 0.5) / 96) @ fractions[:, :2].T + fractions[:, 2], expected)


def test_views_of_perfect_heatmaps_agree_with_the_crop(faces):
    """A network that draws exactly the label's heatmaps has no Siamese loss to speak of, mirrored or not."""
    stage = Stage("test", Schedule(steps=1, batch=4), "full", 128)
    recipe = LandmarkRecipe("fan2", (stage,), "heatmap", weights={"siamese": 1.0, "sigma": 3.0})
    task = LandmarkTask(create("fan2", size=128, stacks=1, dim=32), recipe, stage, faces, faces)
    batch = task.batch(0)
    assert batch["mirrored"].any() and not batch["mirrored"].all()

    class Perfect(torch.nn.Module):
        def intermediate(self, crops):
            return (encode(batch["points"], (128, 128), sigma=3.0),)

    weights = {"siamese": 1.0, "sigma": 3.0}
    losses = OBJECTIVES["heatmap"](Perfect(), batch, MARKUP, weights)
    assert losses["heatmaps"].item() < 1e-9
    energy = encode(batch["base_points"], (128, 128), sigma=3.0).square().mean().item()
    assert losses["siamese"].item() < 0.02 * energy
    wrong = {**batch, "mirrored": ~batch["mirrored"]}
    assert OBJECTIVES["heatmap"](Perfect(), wrong, MARKUP, weights)["siamese"].item() > 0.3 * energy


def test_slpt_divides_by_the_eyes():
    points = torch.rand(2, 68, 2)
    left, right = MARKUP.outer_eye_corners
    points[:, left], points[:, right] = torch.tensor([0.3, 0.5]), torch.tensor([0.7, 0.5])

    class Off(torch.nn.Module):
        def intermediate(self, crops):
            return points[:, None, None].expand(-1, 3, 6, -1, -1) + torch.tensor([0.0, 0.04])

    batch = {"crops": points, "points": points}
    assert OBJECTIVES["slpt"](Off(), batch, MARKUP, {})["loss"].item() == pytest.approx(0.1, rel=1e-4)
