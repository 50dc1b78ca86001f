"""The objectives of the papers: each lowers its loss on a network of its family, and its parts are what they say."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from facelm_models import create, info
from facelm_models.heatmaps import decode, encode
from facelm_sdk import markup as markups
from facelm_training.landmarks import LandmarkTask, mean_shape
from facelm_training.loop import Schedule, train
from facelm_training.objectives import (
    OBJECTIVES,
    POINT_LOSSES,
    WEIGHTS,
    CoordinatesWeights,
    HeatmapWeights,
    MTLDWeights,
    SLPTWeights,
    SoftArgmaxWeights,
    StructuredWeights,
    fraction_maps,
)
from facelm_training.recipe import LandmarkRecipe, Stage, crop_recipe

MARKUP = markups.get("ibug68")
FAMILIES = {
    "mtld_r18": ("mtld", {}, {}, 6),
    "slpt_resnet34": ("slpt", {"layers": 1, "dim": 64, "dropout": 0.0}, {}, 6),
    "fan2": ("heatmap", {"stacks": 1, "dim": 32}, {"scale": 100.0, "siamese": 1.0}, 8),
    "hourglass4": ("structured", {"stacks": 1, "dim": 32}, {"samples": 2}, 24),
    "pyramid_m": ("structured", {"dim": 32}, {"samples": 2}, 24),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_few_steps_lower_the_loss(faces, tmp_path, name):
    objective, options, weights, steps = FAMILIES[name]
    torch.manual_seed(0)
    size = 64
    stage = Stage("test", Schedule(steps=steps, batch=3, rate=1e-3, warmup=2, ema=0.0), "full", size)
    recipe = LandmarkRecipe(name, (stage,), objective, weights=WEIGHTS[objective](**weights))
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


def labelled(count=2, size=64):
    """A batch of made-up labels, all of them known."""
    points = 0.2 + 0.6 * torch.rand(count, 68, 2, generator=torch.Generator().manual_seed(0))
    left, right = MARKUP.outer_eye_corners
    points[:, left], points[:, right] = torch.tensor([0.3, 0.5]), torch.tensor([0.7, 0.5])
    known = torch.ones(count, 68, dtype=torch.bool)
    return {"crops": torch.zeros(count, 3, size, size), "points": points, "known": known}


def by_table(batch, intermediate, config=None):
    """A network that says what it is told to say."""

    class Network(torch.nn.Module):
        def forward(self, crops):
            return intermediate

        def intermediate(self, crops):
            return intermediate

    network = Network()
    network.config = config
    return network


def smooth_wing(x, t=0.01, w=10.0, epsilon=2.0):
    """LOTR paper, eq. 21 to 23, in Python's own arithmetic; c2 so that nothing steps at t."""
    s = (w + epsilon) / (2 * t * (epsilon + t))
    c1 = w - (w + epsilon) * math.log(1 + w / epsilon)
    c2 = (w + epsilon) * math.log(1 + t / epsilon) - s * t**2
    if x < t:
        return s * x**2
    return x - c1 - c2 if x > w else (w + epsilon) * math.log(1 + x / epsilon) - c2


@pytest.mark.parametrize("error", [0.005, 1.0, 7.5, 25.0])
def test_lotr_takes_smooth_wing_of_pixels(error):
    """An error in pixels of the crop, in x alone: half of the coordinates."""
    batch = labelled(size=256)
    network = by_table(batch, batch["points"].double() + torch.tensor([error / 256, 0.0], dtype=torch.float64))
    for weights, unit in (
        (CoordinatesWeights(unit="pixel", eye_weights=False), 1.0),
        (CoordinatesWeights(), 192 / 256),
    ):
        loss = OBJECTIVES["coordinates"](network, batch, MARKUP, weights)["loss"]
        assert loss.item() == pytest.approx(smooth_wing(error * unit) / 2, rel=2e-3)


def test_losses_of_coordinates_by_name():
    """Three pixels off in x, with the constants of the LOTR paper: what its table compares."""
    batch = labelled()
    network = by_table(batch, batch["points"] + torch.tensor([3 / 64, 0.0]))
    expected = {
        "l1": 3.0,
        "l2": 4.5,
        "smooth_l1": 2.5,
        "wing": 10 * math.log(2.5),
        "smooth_wing": smooth_wing(3.0),
    }
    assert expected.keys() == POINT_LOSSES.keys()
    for name, value in expected.items():
        weights = CoordinatesWeights(loss=name, unit="pixel", eye_weights=False)
        loss = OBJECTIVES["coordinates"](network, batch, MARKUP, weights)["loss"]
        assert loss.item() == pytest.approx(value / 2, rel=1e-4), name


def mtld_outputs(batch, offsets):
    """A layer for each offset in 256ths, and heatmaps as labelled."""
    layers = torch.stack([batch["points"] + torch.as_tensor(offset) / 256 for offset in offsets], 1)
    return layers, encode(batch["points"], (16, 16))


def test_mtld_has_an_l1_for_every_layer():
    batch = labelled()
    for offsets, expected in ((([4.0, 2.0], [0.0, 0.0]), 1.5), (([0.0, 0.0], [4.0, 2.0]), 1.5), (([1.0, 1.0],) * 2, 1)):
        terms = OBJECTIVES["mtld"](
            by_table(batch, mtld_outputs(batch, offsets)), batch, MARKUP, MTLDWeights(points=2.0)
        )
        assert terms["points"].item() == pytest.approx(2 * expected, rel=1e-4)
        assert terms["heatmaps"].item() == pytest.approx(0, abs=1e-9)
        assert terms["structure"].item() == pytest.approx(0, abs=1e-2)


def test_mtld_has_a_structure_loss_of_the_last_layer():
    """Distances grow by a tenth, their squares by 21%, about the faces' own centre."""
    batch = labelled()
    points = batch["points"]
    wider = points.mean(1, keepdim=True) + 1.1 * (points - points.mean(1, keepdim=True))
    gaps = 256**2 * (points[:, :, None] - points[:, None]).square().sum(-1)
    for neighbours in (1, 5):
        nearest = gaps.masked_fill(torch.eye(68, dtype=torch.bool), torch.inf).sort(2).values[..., :neighbours]
        for layers, expected in (([points, wider], 0.21 * nearest.mean().item()), ([wider, points], 0.0)):
            network = by_table(batch, (torch.stack(layers, 1), encode(points, (16, 16))))
            weights = MTLDWeights(structure=1.0, neighbours=neighbours)
            structure = OBJECTIVES["mtld"](network, batch, MARKUP, weights)["structure"]
            assert structure.item() == pytest.approx(expected, rel=1e-3)


def structured_outputs(batch, size=16):
    generator = torch.Generator().manual_seed(1)
    scores, edges, points = (torch.rand(2, n, size, size, generator=generator) for n in (68, 1, 68))
    return SimpleNamespace(scores=scores, edges=edges, points=points)


def test_settings_of_the_structured_objective():
    """Each reaches the loss; the draws begin where the random numbers are told to."""
    batch = labelled()
    network = by_table(batch, [structured_outputs(batch)], SimpleNamespace(edges=[tuple(range(17))]))

    def terms(**settings):
        torch.manual_seed(0)
        values = OBJECTIVES["structured"](network, batch, MARKUP, StructuredWeights(**settings))
        return {key: value.item() for key, value in values.items()}

    plain = terms()
    for change in (
        {"alpha": 2.0},
        {"epsilon": 2.0},
        {"s": 0.5},
        {"margin": "l2"},
        {"samples": 3},
        {"gamma": 0.5},
        {"edge_weight": 1.0},
        {"patch": 9},
        {"kernel": 3},
        {"corners": True},
    ):
        other = terms(**change)
        assert other["structured"] != plain["structured"], change
        assert (other["edges"], other["points"]) == (plain["edges"], plain["points"])
    assert terms(sigma=2.0)["points"] != plain["points"]
    doubled = terms(structured=2.0, edges=3.0, points=4.0)
    assert doubled == pytest.approx({k: f * plain[k] for k, f in (("structured", 2), ("edges", 3), ("points", 4))})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_unknown_points_teach_nothing(name):
    """What is said of the jaw has no slope where the jaw is not known."""
    batch = labelled()
    batch |= {"matrices": torch.eye(2, 3).expand(2, 2, 3), "mirrored": torch.tensor([False, True])}
    batch["base_points"] = batch["points"][:1]
    batch["known"][0, :17] = False
    batch["known"][1, list(MARKUP.flip[:17])] = False
    outputs = {
        "coordinates": [torch.rand(2, 68, 2)],
        "slpt": [torch.rand(2, 3, 6, 68, 2)],
        "heatmap": [torch.rand(2, 68, 16, 16)],
        "mtld": [torch.rand(2, 3, 68, 2), torch.rand(2, 68, 16, 16)],
        "soft_argmax": [torch.rand(2, 68, 16, 16)],
        "structured": [torch.rand(2, 68, 16, 16), torch.rand(2, 1, 16, 16), torch.rand(2, 68, 16, 16)],
    }[name]
    outputs = [out.requires_grad_() for out in outputs]
    said = {"mtld": tuple(outputs), "heatmap": outputs, "soft_argmax": outputs}.get(name, outputs[0])
    if name == "structured":
        said = [SimpleNamespace(scores=outputs[0], edges=outputs[1], points=outputs[2])]
    weights = WEIGHTS[name](**({"siamese": 1.0} if name == "heatmap" else {}))
    network = by_table(batch, said, SimpleNamespace(edges=[tuple(range(17))]))
    torch.stack(list(OBJECTIVES[name](network, batch, MARKUP, weights).values())).sum().backward()
    for out in outputs:
        if 68 not in out.shape:
            continue
        slope = out.grad.movedim(out.shape.index(68), 1).flatten(2).abs().amax(2)
        assert (slope[~batch["known"]] == 0).all() and (slope[batch["known"]] > 0).all()


def test_the_weights_weigh(faces):
    stage = Stage("test", Schedule(steps=1, batch=2), "full", 64)
    model = create("mtld_r18", size=64).eval()
    task = LandmarkTask(model, LandmarkRecipe("mtld_r18", (stage,), "mtld"), stage, faces, faces)
    batch = task.batch(0)
    one, other = (OBJECTIVES["mtld"](model, batch, MARKUP, MTLDWeights(1.0, 1.0, factor)) for factor in (1.0, 3.0))
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
    recipe = LandmarkRecipe("fan2", (stage,), "heatmap", weights=HeatmapWeights(siamese=1.0, sigma=3.0))
    task = LandmarkTask(create("fan2", size=128, stacks=1, dim=32), recipe, stage, faces, faces)
    batch = task.batch(0)
    assert batch["mirrored"].any() and not batch["mirrored"].all()

    class Perfect(torch.nn.Module):
        def intermediate(self, crops):
            return (encode(batch["points"], (128, 128), sigma=3.0),)

    weights = recipe.weights
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

    batch = {"crops": points, "points": points, "known": torch.ones(2, 68, dtype=torch.bool)}
    assert OBJECTIVES["slpt"](Off(), batch, MARKUP, SLPTWeights())["loss"].item() == pytest.approx(0.1, rel=1e-4)


def test_corrections_are_of_the_encoding_or_of_the_prediction():
    """Sub-pixel paper, section 4.1: "static" from the label to its own cell, "dynamic" to the map's largest."""
    batch = labelled()
    cells = 16 * batch["points"] - 0.5
    peaks = (cells + 0.5).floor()
    shifted = (peaks + torch.tensor([1.0, 0.0]) + 0.5) / 16
    for of, places, correction in (
        ("encoding", shifted, cells - peaks),
        ("prediction", shifted, cells - peaks - torch.tensor([1.0, 0.0])),
    ):
        output = torch.cat([encode(places, (16, 16)).flatten(2), correction], 2)
        weights = HeatmapWeights(correction=2.0, correction_of=of)
        terms = OBJECTIVES["heatmap"](by_table(batch, (output,)), batch, MARKUP, weights)
        assert terms["correction"].item() == pytest.approx(0, abs=1e-9)
        output[..., -2] += 0.5  # of a cell, in x
        terms = OBJECTIVES["heatmap"](by_table(batch, (output,)), batch, MARKUP, weights)
        assert terms["correction"].item() == pytest.approx(2 * 0.25 / 2, rel=1e-5)
    assert terms["heatmaps"].item() > 0


@pytest.mark.parametrize("reading", ["soft_argmax", "expectation"])
@pytest.mark.parametrize("loss", ["l1", "l2", "smooth_l1", "star"])
def test_soft_argmax_is_zero_where_its_decoding_reads_the_label(reading, loss):
    """And what it is else is of an error in halves of the crop, summed over x and y."""
    batch = labelled()
    maps = encode(batch["points"], (16, 16), sigma=0.8)
    weights = SoftArgmaxWeights(loss=loss, reading=reading, temperature=30.0)
    batch["points"] = decode(maps, weights.decoding)[0]
    objective = OBJECTIVES["soft_argmax"]
    still = objective(by_table(batch, (maps, maps)), batch, MARKUP, weights)["coordinates"].item()
    batch["points"] = batch["points"] + torch.tensor([0.1 * (15 / 16 if reading == "soft_argmax" else 1), 0.0])
    moved = objective(by_table(batch, (maps, maps)), batch, MARKUP, weights)["coordinates"].item()
    if loss == "star":
        assert moved > still + 0.5
        return
    assert still == pytest.approx(0, abs=1e-6)
    assert moved == pytest.approx(2 * {"l1": 0.2, "l2": 0.02, "smooth_l1": 0.195}[loss], rel=1e-4)


def test_soft_argmax_of_an_hourglass_trains_its_attention_too(faces):
    torch.manual_seed(0)
    network = create("hourglass4", size=64, stacks=1, dim=32).train()
    batch = labelled() | {"crops": torch.randn(2, 3, 64, 64)}
    weights = SoftArgmaxWeights(loss="star", reading="expectation")
    terms = OBJECTIVES["soft_argmax"](network, batch, MARKUP, weights)
    assert terms.keys() == {"coordinates", "edges", "points"}
    sum(terms.values()).backward()
    grads = [p.grad for p in network.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    structured = OBJECTIVES["structured"](network, batch, MARKUP, StructuredWeights(edges=10.0, points=10.0))
    assert terms["edges"].item() == pytest.approx(structured["edges"].item(), rel=1e-4)
