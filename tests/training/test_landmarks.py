"""Landmark training: it learns, and its parts do what they say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from facelm_models import create, restore
from facelm_models.official.torchvision import backbone_keys
from facelm_models.slpt import PatchCrop
from facelm_models.weights import save
from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError
from facelm_training.fast import speed_up
from facelm_training.landmarks import (
    LandmarkTask,
    Pooled,
    Validation,
    mean_shape,
    resized,
    stage_errors,
    to_input,
    train_landmarks,
)
from facelm_training.loop import Schedule, train
from facelm_training.recipe import LandmarkRecipe, Stage, crop_recipe
from tests.tolerances import GRADIENT, REWRITE, ROUND_TRIP


class OneBatch(LandmarkTask):
    """Shows the same crops again and again."""

    def batch(self, step):
        return super().batch(0)


@pytest.mark.parametrize("network", ["pooled", "full"])
def test_a_few_steps_lower_the_loss(faces, tmp_path, network):
    torch.manual_seed(0)
    model = create("lotr_m", size=64, dropout=0.0)
    schedule = Schedule(steps=10 if network == "pooled" else 40, batch=6, rate=2e-3, warmup=2, ema=0.0)
    stage = Stage("test", schedule, network, 64)
    recipe = LandmarkRecipe("lotr_m", (stage,))
    model.mean_shape.copy_(mean_shape(crop_recipe(recipe, 64), faces))
    task = OneBatch(Pooled(model, model.mean_shape) if network == "pooled" else model, recipe, stage, faces, faces)
    batch = task.batch(0)
    before = task.loss(batch)["loss"].item()
    train(task, schedule, tmp_path)
    task.model.train()
    assert task.loss(batch)["loss"].item() < 0.9 * before


def test_the_loss_weighs_by_the_eye_distance(faces):
    stage = Stage("test", Schedule(steps=1, batch=2), "full", 64)
    task = LandmarkTask(create("lotr_m", size=64), LandmarkRecipe("lotr_m", (stage,)), stage, faces, faces)
    points = torch.rand(2, 68, 2)
    left, right = markups.get("ibug68").outer_eye_corners
    points[:, left], points[:, right] = torch.tensor([0.3, 0.5]), torch.tensor([0.7, 0.5])
    points[1, right] = torch.tensor([0.5, 0.5])  # half the eye distance

    known = torch.ones(2, 68, dtype=torch.bool)

    def loss(wrong, where=slice(None)):
        off = torch.zeros_like(points)
        off[:, where] = torch.tensor([0.0, 0.02]) * torch.tensor(wrong)[:, None, None]
        task.model = lambda crops: points + off
        return task.loss({"crops": points, "points": points, "known": known})["loss"].item()

    # The weights are the mean distance over each: 0.3 / 0.4 and 0.3 / 0.2.
    assert loss([0.0, 1.0]) / loss([1.0, 0.0]) == pytest.approx(1.5 / 0.75, rel=1e-4)
    assert loss([0.0, 0.0]) == 0
    known[:, :17] = False
    assert loss([1.0, 1.0], slice(17)) == 0 and loss([1.0, 1.0], slice(17, 68)) == pytest.approx(loss([1.0, 1.0]))


def test_an_image_part_learns_under_heatmaps_first(faces, tmp_path):
    """What the warm-up stage learned is where the full network starts."""
    stages = (
        Stage("maps", Schedule(steps=2, batch=2, warmup=1), "heatmaps", 32),
        Stage("full", Schedule(steps=1, batch=2, rate=1e-12, warmup=1, ema=0.0, weight_decay=0.0), "full", 64),
    )
    recipe = LandmarkRecipe("slpt_hrnet18", stages, "slpt", options={"layers": 1, "dim": 32})
    trained = train_landmarks(recipe, faces, faces, tmp_path)
    warm = torch.load(tmp_path / "maps" / "done.pt", weights_only=True)
    weights = [key for key in warm if key.startswith("features") and key.endswith("weight")]
    assert len(weights) > 100
    for key in weights:
        torch.testing.assert_close(trained.state_dict()[key], warm[key], rtol=0, atol=1e-6)
    assert trained.config.size == 64 and not (trained.mean_shape == 0.5).all()


def test_pooled_shares_the_backbone():
    model = create("lotr_m", size=64)
    pooled = Pooled(model, model.mean_shape)
    assert pooled.backbone is model.backbone
    assert pooled.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 68, 2)


@torch.no_grad()
def test_resized_keeps_the_weights():
    torch.manual_seed(0)
    model = create("lotr_m", size=128, num_landmarks=29).eval()
    other = resized(model, "lotr_m", 192)
    assert (other.config.size, other.config.num_landmarks) == (192, 29)
    for key, value in model.state_dict().items():
        if key != "position":
            assert torch.equal(other.state_dict()[key], value), key
    assert other.position.shape == (1, 36, 64)
    grids = [m.position.unflatten(1, (m.side, m.side)).mean((1, 2)) for m in (model, other)]
    torch.testing.assert_close(grids[0], grids[1], rtol=0, atol=0.05)
    crops = torch.randn(2, 3, 128, 128)
    torch.testing.assert_close(resized(model, "lotr_m", 128).eval()(crops), model(crops), **REWRITE)


def weights_file(path, name, **options):
    torch.manual_seed(1)
    save(path, create(name, **options), {"model": name, "markup": "ibug68"})
    return str(path)


def test_training_starts_from_trained_weights(faces, tmp_path):
    """One step of rate 0, at another crop size: the network is the one it started from, but for the data's mean."""
    start = weights_file(tmp_path / "start.safetensors", "lotr_m", size=64)
    stage = Stage("none", Schedule(steps=1, batch=2, rate=0.0, warmup=0, ema=0.0), "full", 96)
    recipe = LandmarkRecipe("lotr_m", (stage,), start=start)
    trained = train_landmarks(recipe, faces, faces, tmp_path)
    expected = resized(restore(start), "lotr_m", 96).state_dict()
    assert trained.config.size == 96
    for key, value in trained.named_parameters():
        torch.testing.assert_close(value, expected[key])
    torch.testing.assert_close(trained.mean_shape, mean_shape(crop_recipe(recipe, 256), faces))


def test_training_starts_from_a_backbone(faces, tmp_path):
    """A checkpoint in torchvision's names; the rest of the network is as without it."""
    torch.manual_seed(3)
    other = create("lotr_m", size=64).backbone
    table = backbone_keys(other)
    own = other.state_dict()
    torch.save({theirs: own[ours] for theirs, ours in table.items()}, tmp_path / "imagenet.pth")
    stage = Stage("none", Schedule(steps=1, batch=2, rate=0.0, warmup=0, ema=0.0), "full", 64)
    trained = [
        train_landmarks(LandmarkRecipe("lotr_m", (stage,), backbone=path), faces, faces, tmp_path / f"run{bool(path)}")
        for path in ("", str(tmp_path / "imagenet.pth"))
    ]
    for key, value in trained[1].named_parameters():
        if key.startswith("backbone."):
            torch.testing.assert_close(value, own[key.removeprefix("backbone.")])
        else:
            torch.testing.assert_close(value, trained[0].get_parameter(key))


def test_training_starts_from_the_backbone_of_another_network(faces, tmp_path):
    """SLPT's lighter HRNet has the first exchange of each stage of the whole one."""
    path = weights_file(tmp_path / "hrnet.safetensors", "hrnet18", size=64)
    other = restore(path).backbone.state_dict()
    stage = Stage("none", Schedule(steps=1, batch=2, rate=0.0, warmup=0, ema=0.0), "full", 64)
    small = {"layers": 1, "stages": 1, "dim": 16, "heads": 2}
    recipe = LandmarkRecipe("slpt_hrnet18", (stage,), "slpt", options=small, backbone=path)
    trained = dict(train_landmarks(recipe, faces, faces, tmp_path / "run").features[0].named_parameters())
    assert len(trained) < len(other) and any(key.startswith("stages.2.exchanges.0.") for key in trained)
    assert not any(key.startswith("stages.2.exchanges.1.") for key in trained)
    for key, value in trained.items():
        torch.testing.assert_close(value, other[key])
    with pytest.raises(InputError, match="its HRNetW18 does not hold a MobileNetV2's"):
        train_landmarks(LandmarkRecipe("lotr_m", (stage,), backbone=path), faces, faces, tmp_path / "other")


def test_what_training_cannot_start_from_is_told(faces, tmp_path):
    stage = Stage("none", Schedule(steps=1, batch=2), "full", 64)
    other = weights_file(tmp_path / "other.safetensors", "fan2", size=64, depth=1)
    larger = weights_file(tmp_path / "larger.safetensors", "lotr_m", size=64, num_landmarks=98)
    for start, message in ((other, "FANConfig.* is not LOTRConfig"), (larger, "98.* is not"), ("lotr", "lotr")):
        with pytest.raises(InputError, match=f"cannot start from .*{message}"):
            train_landmarks(LandmarkRecipe("lotr_m", (stage,), start=start), faces, faces, tmp_path)


def test_mean_shape_and_validation_undo_the_crop(faces):
    """A network that knows the first face."""
    one = dataclasses.replace(
        faces,
        images=faces.images[:1],
        names=faces.names[:1],
        **{key: getattr(faces, key)[:1] for key in ("kps", "points", "known", "weights")},
    )
    recipe = LandmarkRecipe("lotr_m", ())
    fractions = mean_shape(crop_recipe(recipe, 64), one)
    assert fractions.shape == (68, 2) and fractions.min() > 0 and fractions.max() < 1

    class Knows(nn.Module):
        def forward(self, crops):
            return fractions[None]

    np.testing.assert_allclose(Validation(recipe, 64, one).predict(Knows()), one.points, **ROUND_TRIP)
    assert Validation(recipe, 64, one).errors(Knows()).max() < 1e-4
    points, known = one.points.copy(), one.known.copy()
    points[0, 30] += 10
    guessed = dataclasses.replace(one, points=points)
    off = 10 * 2**0.5 / np.linalg.norm(points[0, 36] - points[0, 45]) / 68
    np.testing.assert_allclose(Validation(recipe, 64, guessed).errors(Knows()), off, rtol=1e-3)
    known[0, 30] = False
    guessed = dataclasses.replace(guessed, known=known)
    assert Validation(recipe, 64, guessed).errors(Knows()).max() < 1e-4


def test_networks_of_stages_are_scored_after_each(faces):
    torch.manual_seed(0)
    size = {"num_landmarks": 68, "size": 64, "backbone": "resnet34", "dim": 32, "heads": 4, "layers": 1}
    model = create("slpt_hrnet18", feedforward=32, stages=2, **size).eval()
    recipe = LandmarkRecipe("slpt_hrnet18", (Stage("full", Schedule(steps=1), size=64),), "slpt")
    val = Validation(recipe, 64, faces)
    first, last = stage_errors(model, val)
    np.testing.assert_allclose(last, val.errors(model), rtol=1e-4)
    assert first.shape == last.shape == (len(faces),) and np.abs(first - last).max() > 1e-4


def test_to_input_by_hand():
    crop = np.zeros((1, 2, 2, 3), np.uint8)
    crop[0, 0, 1] = 10, 20, 30  # BGR
    expected = [(30 - 123.675) / 58.395, (20 - 116.28) / 57.12, (10 - 103.53) / 57.375]
    np.testing.assert_allclose(to_input(crop, "lotr_m")[0, :, 0, 1], expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (8, 7)], ids=str)
def test_the_faster_gradient_is_the_gradient(size):
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6, bias=False)
    fast = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6, bias=False)
    fast.load_state_dict(plain.state_dict())
    fast = speed_up(nn.Sequential(fast))
    assert type(fast[0]) is not nn.Conv2d
    x = torch.randn(3, 6, *size)
    gradients = []
    for conv in (plain, fast):
        leaf = x.clone().requires_grad_()
        y = conv(leaf)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        gradients.append((y, leaf.grad, next(conv.parameters()).grad))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, **GRADIENT)


def test_the_faster_samples_are_the_samples():
    torch.manual_seed(0)
    fast = speed_up(nn.Sequential(PatchCrop(3)))[0]
    assert type(fast) is not PatchCrop
    features = torch.randn(2, 5, 6, 8).to(memory_format=torch.channels_last)
    corner = torch.rand(2, 4, 2) * 0.7
    corner[0, 0], corner[0, 1] = 0, 1  # at the ends of the map
    extent = torch.rand(2, 4, 2) * 0.3
    extent[0, 1] = 0
    found = []
    for crop in (PatchCrop(3), fast):
        leaf = features.clone().requires_grad_()
        samples = crop(leaf, corner, extent)
        (samples * torch.linspace(-1, 1, samples.numel()).view_as(samples)).sum().backward()
        found.append((samples, leaf.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, **GRADIENT)


def test_only_what_is_slow_is_replaced():
    torch.manual_seed(0)
    model = create("lotr_m", size=64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fast = speed_up(model)
    changed = [m for m in fast.modules() if isinstance(m, nn.Conv2d) and type(m) is not nn.Conv2d]
    assert len(changed) == 4 and all(m.stride == (2, 2) and m.groups == m.in_channels for m in changed)
    assert all(torch.equal(value, before[key]) for key, value in fast.state_dict().items())
    assert fast.state_dict().keys() == before.keys()
