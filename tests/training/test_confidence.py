"""Heads for the confidence: what they learn and leave as it is, their crops, calibration and figures."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from facelm_models import create, restore
from facelm_models.protocol import has_confidence
from facelm_models.weights import read_card, save
from facelm_sdk import Detector, Landmarker
from facelm_sdk import markup as markups
from facelm_sdk.detector import Detections
from facelm_sdk.errors import InputError
from facelm_training import confidence, negatives
from facelm_training.augment import cover_part
from facelm_training.confidence import calibrate, platt, run_heads, train_confidence, with_confidence, with_heads
from facelm_training.datasets.base import build
from facelm_training.evaluation import Cut
from facelm_training.figures import plot_reliability
from facelm_training.landmarks import train_landmarks
from facelm_training.loop import Schedule
from facelm_training.negatives import SHARES, Negatives, misplaced, part_of, read_negatives
from facelm_training.recipe import Augmentation, ConfidenceCrops, LandmarkRecipe, Stage, _check, read
from facelm_training.reliability import bins_of, false_faces, observe, report

STAGE = Stage(
    "confidence", Schedule(steps=80, batch=16, rate=3e-3, warmup=2, ema=0.5, precision="fp32"), "confidence", 64
)
RECIPE = LandmarkRecipe(
    "lotr_m", (STAGE,), confidence=ConfidenceCrops(24, 24), augmentation=Augmentation(cover=0.5), evaluate_every=30
)


class OneFace:
    """A detector that takes the middle of every picture for a face."""

    def __init__(self, det_thresh=None, threads=None):
        pass

    def __call__(self, image):
        height, width = image.shape[:2]
        centre = np.array([width, height]) / 2
        kps = centre + height / 8 * np.array([(-1, -1), (1, -1), (0, 0), (-0.8, 1), (0.8, 1)])
        box = np.concatenate([centre - height / 4, centre + height / 4])
        return Detections(np.float32(box[None]), np.float32([0.5]), np.float32(kps[None]))


@pytest.fixture
def data(tmp_path):
    """A folder with pictures of noise, which show no face."""
    folder = tmp_path / "data" / "negatives"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(24):
        cv2.imwrite(str(folder / f"noise_{index}.png"), rng.integers(0, 256, (96, 128, 3), np.uint8))
    return folder.parent


@pytest.fixture(
    params=[("lotr_m", {"layers": 1}), ("pyramid_m", {"dim": 16})],
    ids=lambda param: param[0],
)
def trained(request, faces, data, tmp_path, monkeypatch):
    """A small network, untrained but for its heads, and the network without them."""
    monkeypatch.setattr(confidence, "Detector", OneFace)
    torch.manual_seed(0)
    name, options = request.param
    plain = create(name, size=64, **options)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of the statistics of what it is shown
    with torch.no_grad():
        plain(2 * torch.randn(8, 3, 6, 6).repeat_interleave(11, 2).repeat_interleave(11, 3)[..., :64, :64])
    plain.eval()
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    recipe = dataclasses.replace(RECIPE, model=name)
    return plain, before, train_confidence(plain, recipe, faces, faces, data, tmp_path / "out"), recipe


def test_all_but_the_heads_stays_bit_for_bit(trained):
    plain, before, extended, _ = trained
    after = extended.state_dict()
    heads = {key for key in after if key.startswith("confidence.")}
    assert after.keys() - heads == before.keys() and len(heads) == 13
    for key, value in before.items():
        assert torch.equal(after[key], value) and torch.equal(plain.state_dict()[key], value), key
    crops = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(extended(crops), plain(crops))
        assert torch.equal(extended.forward_features(crops)[0], plain(crops))


def test_heads_tell_faces_from_noise(trained, faces, data):
    plain, _, extended, recipe = trained
    assert has_confidence(extended) and extended.config.confidence and not extended.training
    task = confidence.LandmarkTask(plain, recipe, STAGE, faces, faces)
    held = Negatives.of(list(read_negatives(data / "negatives", "test").values()), OneFace())
    crops = confidence.Crops(recipe, STAGE, task, held)
    shown = [crops.face(number) for number in range(90, 114)]
    rng = np.random.default_rng(1)
    shown += [confidence.Shown(held.false_face(number, task.crop, rng, 0.0)) for number in range(12)]
    seen = confidence._Eye(extended, recipe, STAGE)("crops", (len(shown), shown))
    with torch.no_grad():
        scores, presence = run_heads(extended.confidence, seen.batch(torch.arange(len(shown))))
    assert scores.shape == (36, 68) and presence[:24].mean() > presence[24:].mean() + 1
    assert seen.face.tolist() == [True] * 24 + [False] * 12
    assert not seen.known[24:].any() and seen.known[:24].any()


def test_what_is_right_is_measured_by_the_eye_distance(faces):
    network = with_heads(create("lotr_m", size=64, layers=1).eval(), "lotr_m")
    task = confidence.LandmarkTask(create("lotr_m", size=64, layers=1), RECIPE, STAGE, faces, faces)
    shown = confidence.Crops(RECIPE, STAGE, task, Negatives([np.zeros((9, 9, 3), np.uint8)], [])).face(0)
    crops = confidence.to_input(shown.crop[None], "lotr_m")
    with torch.no_grad():
        points = network(crops)[0].numpy() * 64 - 0.5
    left, right = markups.get("ibug68").outer_eye_corners
    label = points.copy()
    label[:, 0] += 0.2
    label[left], label[right] = points[left], points[left] + (10.0, 0)  # pixels: 5% are half a pixel
    label[30, 0] += 0.4
    seen = confidence._Eye(network, RECIPE, STAGE)("crops", (1, [dataclasses.replace(shown, points=np.float32(label))]))
    expected = np.linalg.norm(label - points, axis=1) <= 0.5
    assert seen.right[0].numpy().tolist() == expected.tolist() and not expected[30] and expected.sum() > 60


def test_a_line_through_logits_is_found_again():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 2, 20000))
    true = torch.from_numpy(rng.random(20000)) < (0.5 * logits - 1).sigmoid()
    slope, shift = platt(logits, true)
    assert slope == pytest.approx(0.5, abs=0.03) and shift == pytest.approx(-1, abs=0.06)
    slope, shift = platt(torch.tensor([-1.0, -2.0, 1.0, 2.0]), torch.tensor([False, False, True, True]))
    assert 0 < slope < 5 and abs(shift) < 0.01  # parted classes give no infinite slope


def test_balanced_classes_weigh_the_same():
    logits, true = torch.cat([torch.zeros(900), torch.ones(100)]), torch.arange(1000) >= 900
    true[:90] = True
    true[900:910] = False
    slope, shift = platt(logits, true, balanced=True)
    prior = 180 / (180 + 820)
    expected = np.log(90 / 810 * (1 - prior) / prior)
    assert shift == pytest.approx(expected, abs=0.05) and slope > 1


def test_calibration_is_folded_into_the_last_layers():
    torch.manual_seed(0)
    heads = with_heads(create("lotr_m", size=64, layers=1), "lotr_m").confidence
    features = 4 * torch.randn(400, 68, 64), 4 * torch.randn(400, 1280, 2, 2)
    with torch.no_grad():
        logits, presence = heads(*features)
    right, face = torch.rand(400, 68) < (0.3 * logits + 1).sigmoid(), torch.rand(400) < (presence - 1).sigmoid()
    held_out = confidence.Seen(features, right, torch.ones_like(right), face)
    before = bins_of(logits.sigmoid().numpy().ravel(), right.numpy().ravel()).error
    calibrate(heads, held_out)
    with torch.no_grad():
        after, _ = heads(*features)
    assert bins_of(after.sigmoid().numpy().ravel(), right.numpy().ravel()).error < min(0.02, before / 2)
    torch.testing.assert_close(after, 0.3 * logits + 1, atol=0.1, rtol=0)


def test_half_of_a_face_is_covered():
    rng, points = np.random.default_rng(0), np.random.default_rng(1).uniform(20, 100, (400, 2)).astype(np.float32)
    image = np.full((128, 128, 3), 77, np.uint8)
    parts = []
    for _ in range(40):
        covered, hidden = cover_part(image, points, rng)
        changed = (covered != image).any(-1)
        places = np.rint(points).astype(int)
        assert (changed[places[:, 1], places[:, 0]] == hidden).mean() > 0.97
        assert not changed[:5].any() and (image == 77).all()
        parts.append(hidden.mean())
    assert min(parts) > 0.4 and max(parts) < 0.6


def test_a_misplaced_crop_misses_the_face(faces):
    rng = np.random.default_rng(0)
    matrix, centre = np.eye(2, 3), np.array([31.5, 31.5])
    for _ in range(50):
        moved = misplaced(matrix, 64, rng)
        zoom = np.hypot(*moved[:, 0])
        shift = np.linalg.norm(moved[:, :2] @ centre + moved[:, 2] - centre)
        assert zoom >= 2.2 or zoom <= 1 / 2.2 or shift >= 0.6 * 64


def test_the_parts_of_the_negatives_are_by_name(data):
    folder = data / "negatives"
    parts = {part: set(read_negatives(folder, part)) for part in SHARES}
    assert sum(map(len, parts.values())) == 24 == len(set.union(*parts.values()))
    assert all(part_of(name) == part for part, names in parts.items() for name in names)
    shares = [sum(part_of(f"{i}.jpg") == part for i in range(4000)) / 4000 for part in SHARES]
    np.testing.assert_allclose(shares, list(SHARES.values()), atol=0.03)
    with pytest.raises(InputError, match="has no pictures without a face for train"):
        read_negatives(data / "nowhere", "train")


def test_a_false_face_is_cut_as_a_face(data, faces):
    held = Negatives.of(list(read_negatives(data / "negatives", "test").values()), OneFace())
    assert len(held.false) == len(held.images) * (1 + negatives.PIECES)
    crop = held.false_face(0, confidence.LandmarkTask(
        create("lotr_m", size=64, layers=1), RECIPE, STAGE, faces, faces
    ).crop, np.random.default_rng(0), 0.0)  # fmt: skip
    assert crop.shape == (64, 64, 3) and crop.std() > 20
    assert held.anything(64, np.random.default_rng(0)).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("stages", "options", "message"),
    [
        ((STAGE, Stage("full", Schedule(steps=1), "full", 64)), {}, "stage confidence, of the confidence, is the last"),
        ((Stage("warm", Schedule(steps=1), "pooled", 64), STAGE), {}, 'comes after one whose network is "full"'),
        ((STAGE,), {"options": {"confidence": True}}, "options has unknown entries confidence"),
        ((STAGE,), {"model": "fan2"}, "fan2 has no heads for the confidence"),
    ],
)
def test_recipes_that_cannot_be(stages, options, message):
    with pytest.raises(InputError, match=message):
        _check(LandmarkRecipe(**{"model": "lotr_m", "stages": stages, **options}))


def test_a_confidence_alone_needs_trained_weights(faces, tmp_path):
    with pytest.raises(InputError, match=r"needs trained weights: start = \"FILE\" \(--start FILE\)"):
        train_landmarks(RECIPE, faces, faces, tmp_path)
    path = tmp_path / "start.safetensors"
    network = create("lotr_m", size=64, layers=1, lateral=True).eval()
    save(path, network, {"model": "lotr_m", "data": "some", "recipe": "Long.", "accuracy": {"nme": 3}, "run": "x"})
    started = train_landmarks(dataclasses.replace(RECIPE, start=str(path)), faces, faces, tmp_path)
    assert started.config == network.config
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in started.state_dict().items())
    card = with_confidence({"model": "lotr_m", "data": "other", "recipe": "Then heads."}, str(path))
    assert card["data"] == "some" and card["recipe"] == "Long. Then heads." and card["run"] == "x"
    assert "accuracy" not in card and "accuracy" in read_card(path)
    save(path, network, {"model": "lotr_m", "recipe": "Long"})
    assert with_confidence({"recipe": "Then heads."}, str(path))["recipe"] == "Long. Then heads."


@pytest.mark.parametrize("name", ["pyramid_m", "lotr_m_128"])
def test_the_packaged_recipe_gives_trained_weights_their_confidence(name):
    recipe = read(f"{name}_confidence")
    assert recipe.only_confidence and recipe.start == name and recipe.stages[-1].size == 128
    assert with_heads(restore(name), name).config.confidence


def test_networks_without_heads_are_told(faces, data, tmp_path):
    with pytest.raises(InputError, match="fan2 has no heads"):
        with_heads(create("fan2", size=64, stacks=1, dim=32), "fan2")
    with pytest.raises(InputError, match="is for crops of 64 pixels, but the network takes 96"):
        train_confidence(create("lotr_m", size=96, layers=1), RECIPE, faces, faces, data, tmp_path)


def test_the_calibration_error_of_bins():
    scores, right = np.array([0.0, 0.1, 0.9, 1.0]), np.array([False, False, True, False])
    bins = bins_of(scores, right, 2)
    assert bins.counts.tolist() == [2, 2] and bins.right.tolist() == [0, 0.5]
    assert bins.error == pytest.approx(0.5 * 0.05 + 0.5 * 0.45)
    assert np.isnan(bins_of(np.zeros(0), np.zeros(0, bool)).error)


@pytest.fixture
def samples(faces):
    return build("ibug68", faces.names, [lambda i=i: faces.images[i] for i in range(len(faces))], faces.points,
                 kps5=faces.kps)  # fmt: skip


def test_what_a_model_says_of_faces(landmark_model, samples, tmp_path):
    landmarker = Landmarker(landmark_model(has_scores=True, has_presence=True))
    cut = Cut.of(landmarker.recipe, points="dataset")
    plain, half = (observe(samples, landmarker, cut, half_covered=covered) for covered in (False, True))
    assert plain.scores.shape == (6, 68) and plain.presence.shape == (6,) and not plain.covered.any()
    assert 0.3 < half.covered.mean() < 0.7 and half.known.all()
    assert set(half.row()) == set(plain.row()) | {"covered score", "covered right", "visible score", "visible right"}
    assert json.loads(json.dumps(plain.row()))["faces"] == 6
    plot_reliability({"plain": plain.bins}, tmp_path / "plot.png", "tiny")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="tiny does not give scores and presence"):
        observe(samples, Landmarker(landmark_model()), cut)


def test_false_faces_are_those_of_the_test_pictures(landmark_model, detector_model, tmp_path):
    folder = tmp_path / "negatives"
    folder.mkdir()
    names = {part: next(f"{i}.png" for i in range(99) if part_of(f"{i}.png") == part) for part in SHARES}
    for part, level in (("test", 200), ("train", 255), ("calibration", 255)):
        picture = np.zeros((120, 120, 3), np.uint8)
        picture[20:100, 20:100, 0] = level
        cv2.imwrite(str(folder / names[part]), picture)
    landmarker, detector = Landmarker(landmark_model(has_scores=True, has_presence=True)), Detector(detector_model())
    (presence,) = false_faces(landmarker, detector, folder)
    assert 0 < presence < 200 / 255
    tables = report(landmarker, detector, [], folder).tables()
    assert tables["false faces"]["detector at 0.5"] == {"faces": 1, "dropped": 100.0}
