"""Detection training: composed pictures and what the priors are to say of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facelm_models import create
from facelm_models.retinaface import decode_boxes, decode_points
from facelm_sdk import markup as markups
from facelm_sdk.boxes import iou
from facelm_sdk.detector import Detections
from facelm_sdk.pose import HEAD_68
from facelm_training import datasets, detection
from facelm_training.datasets import Dataset, Sample
from facelm_training.detection import Composer, DetectionTask, Scene, landmark_frames
from facelm_training.loop import Schedule
from facelm_training.recipe import DetectionRecipe

from .conftest import centroid

SIZE = 128


def task(frames, **options):
    torch.manual_seed(0)
    options = {"sizes": (SIZE, SIZE, 2 * SIZE), "faces": (20.0, 0.7), **options}
    recipe = DetectionRecipe("retinaface_mnet025", Schedule(steps=2, batch=4), **options)
    pictures = Composer(recipe, frames[:2], frames[2:])
    return DetectionTask(create("retinaface_mnet025"), recipe, pictures, pictures)


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setattr(detection, "photometric", lambda image, rng: image)
    monkeypatch.setattr(detection, "degrade", lambda image, rng, lowest: image)
    monkeypatch.setattr(Composer, "_backdrop", lambda made, size, rng: np.zeros((size, size, 3), np.uint8))


def scene(*boxes, doubtful=()):
    boxes = np.float32(boxes).reshape(-1, 4)
    kps = np.tile(((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None], (1, 5, 1)).astype(np.float32)
    flags = np.array([i in doubtful for i in range(len(boxes))], bool)
    return Scene(np.zeros((SIZE, SIZE, 3), np.uint8), boxes, kps, flags)


def test_iou_by_hand():
    a = np.float32([[0, 0, 10, 10], [0, 0, 2, 2]])
    b = np.float32([[0, 0, 10, 10], [5, 0, 15, 10], [50, 50, 60, 60]])
    np.testing.assert_allclose(iou(a[:, None], b), [[1, 50 / 150, 0], [0.04, 0, 0]], atol=1e-6)


@pytest.mark.parametrize(
    "boxes",
    [
        [(10, 12, 28, 31)],
        [(40.3, 40.2, 49.4, 50.1)],  # smaller than every prior
        [(0, 0, 127, 127)],
        [(5, 5, 60, 20)],  # like none of them
        [(10, 10, 40, 45), (60, 62, 120, 126), (80, 8, 92, 20)],
    ],
    ids=["usual", "tiny", "whole", "flat", "three"],
)
def test_every_face_has_a_prior(frames, boxes):
    made = task(frames)
    encoded, labels, points = made.targets(scene(*boxes))
    faces = labels == 1
    decoded = decode_boxes(encoded, made.priors[SIZE])[faces]
    kps = decode_points(points, made.priors[SIZE])[faces]
    for box in torch.tensor(boxes, dtype=torch.float32):
        own = (decoded - box).abs().amax(-1) < 1e-2
        assert own.any()
        torch.testing.assert_close(kps[own], ((box[:2] + box[2:]) / 2).expand(int(own.sum()), 5, 2), atol=1e-2, rtol=0)
    assert ((decoded[:, None] - torch.tensor(boxes)).abs().amax(-1).amin(1) < 1e-2).all()
    assert (labels == 0).sum() > 0.5 * len(labels)


def test_priors_just_below_the_threshold_are_not_counted(frames):
    made = task(frames)
    box = np.float32([[20, 20, 55, 58]])
    _, labels, _ = made.targets(scene(*box))
    centre, half = made.priors[SIZE][:, :2], made.priors[SIZE][:, 2:] / 2
    overlap = iou(torch.cat([centre - half, centre + half], 1).numpy()[:, None], box)[:, 0]
    between = (overlap < made.recipe.match) & (overlap > made.recipe.match - 0.08)
    assert (labels.numpy()[between & (overlap < overlap.max())] == -1).all()
    assert (labels.numpy()[overlap < 0.2] == 0).all()


def test_doubtful_faces_are_neither_face_nor_background(frames):
    made = task(frames)
    _, labels, _ = made.targets(scene((20, 20, 60, 60), doubtful=[0]))
    assert (labels == 1).sum() == 0 and (labels == -1).sum() > 10
    centre = made.priors[SIZE][:, :2]
    inside = ((centre > 20) & (centre < 60)).all(1)
    assert (labels[inside] == -1).all()
    _, both, _ = made.targets(scene((20, 20, 60, 60), (80, 80, 110, 112), doubtful=[0]))
    assert (both == 1).sum() > 0 and (both[inside] != 0).all()


def test_a_picture_without_a_face_is_background(frames):
    _, labels, _ = task(frames).targets(scene())
    assert (labels == 0).all()


def test_points_stay_on_the_eyes_and_in_their_order(frames, plain):
    made = task(frames, background=0.0, mosaic=0.0, text=0.0).pictures
    flips = []
    for seed in range(24):
        composed = made.compose(np.random.default_rng(seed), frames[0], SIZE)
        blue, red = composed.image[..., 0].astype(int), composed.image[..., 2].astype(int)
        (sure,) = np.flatnonzero(~composed.doubtful)[:1] if (~composed.doubtful).any() else (None,)
        if sure is None:
            continue
        left, right = composed.kps[sure, :2]
        assert left[0] < right[0]
        if not ((composed.kps[sure, :2] > 8) & (composed.kps[sure, :2] < SIZE - 8)).all():
            continue  # an eye is cut off
        spots = [centroid(np.where(channel > 60, channel, 0)) for channel in (blue, red)]
        flipped = spots[0][0] > spots[1][0]
        flips.append(flipped)
        for eye, spot in zip((left, right), spots[::-1] if flipped else spots, strict=True):
            assert np.linalg.norm(eye - spot) < 1.0
        box = composed.boxes[sure]
        assert (box[:2] < composed.kps[sure].min(0)).all() and (box[2:] > composed.kps[sure].max(0)).all()
    assert len(flips) > 8 and set(flips) == {True, False}


def test_mosaics_hold_many_faces_inside_the_picture(frames):
    made = task(frames, background=0.0, mosaic=1.0).pictures
    counts = []
    for seed in range(6):
        composed = made.compose(np.random.default_rng(seed), frames[1], SIZE)
        counts.append(len(composed.boxes))
        assert composed.image.shape == (SIZE, SIZE, 3) and composed.image.dtype == np.uint8
        assert composed.boxes.min() >= -1 and composed.boxes.max() <= SIZE
        assert (composed.boxes[:, 2:] > composed.boxes[:, :2]).all()
    assert max(counts) > 3


def test_a_face_of_any_roll_keeps_its_points_and_its_box(frames, plain):
    """Eyes are blue and red; the box is that of the ellipse in the upright one."""
    made = task(frames, background=0.0, mosaic=0.0, text=0.0, turned=1.0).pictures
    rolls = []
    for seed in range(40):
        composed = made.compose(np.random.default_rng(seed), frames[0], SIZE)
        if not len(composed.boxes) or composed.doubtful[0]:
            continue
        kps, box = composed.kps[0], composed.boxes[0]
        if not ((kps > 8) & (kps < SIZE - 8)).all() or not ((box > 1) & (box < SIZE - 1)).all():
            continue
        blue, red = (centroid(np.where(composed.image[..., i] > 60, composed.image[..., i], 0)) for i in (0, 2))
        assert min(np.linalg.norm(kps[0] - blue), np.linalg.norm(kps[0] - red)) < 1.5
        assert (kps > box[:2]).all() and (kps < box[2:]).all()
        rolls.append(np.rad2deg(np.arctan2(*(kps[1] - kps[0])[::-1])))
    assert len(rolls) > 10 and (np.abs(rolls) > 90).any() and (np.abs(rolls) < 90).any()


def test_drawn_faces_are_no_faces(frames, plain):
    with_them = task(frames, background=0.0, mosaic=0.0, text=0.0, drawn=1.0).pictures
    without = task(frames, background=0.0, mosaic=0.0, text=0.0).pictures
    changed = 0
    for seed in range(6):
        one, other = (made.compose(np.random.default_rng(seed), frames[0], SIZE) for made in (with_them, without))
        np.testing.assert_array_equal(one.boxes, other.boxes)
        changed += (one.image != other.image).any()
        for x1, y1, x2, y2 in one.boxes.round().astype(int):
            inside = np.s_[max(y1 + 1, 0) : y2 - 1, max(x1 + 1, 0) : x2 - 1]
            np.testing.assert_array_equal(one.image[inside], other.image[inside])
    assert changed > 3


def test_a_batch_is_a_function_of_seed_and_step(frames):
    first = task(frames).batch(4)
    np.random.seed(5)  # noqa: NPY002 (the global state has no say)
    other = task(frames)
    other.batch(0)
    for key, value in other.batch(4).items():
        assert torch.equal(torch.nan_to_num(value, nan=-9.0), torch.nan_to_num(first[key], nan=-9.0)), key
    assert not torch.equal(other.batch(3)["images"], first["images"])
    assert first["images"].shape == (4, 3, SIZE, SIZE)
    assert other.batch(2)["images"].shape == (1, 3, 2 * SIZE, 2 * SIZE)


def test_a_few_steps_lower_the_loss(frames):
    made = task(frames, background=0.0, mosaic=0.0)
    batch = made.batch(0)
    optimiser = torch.optim.AdamW(made.model.parameters(), lr=2e-3)
    totals = []
    for _ in range(8):
        total = torch.stack(list(made.loss(batch).values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert np.isfinite(totals).all() and totals[-1] < 0.8 * totals[0]


def test_evaluation_counts(frames, monkeypatch):
    """Of a detector that knows the faces of every composed picture, and of one that sees a face in every picture."""
    made = task(frames, background=0.0, mosaic=0.0)
    scenes = []
    compose = Composer.compose
    monkeypatch.setattr(Composer, "compose", lambda *args: scenes.append(compose(*args)) or scenes[-1])
    empty = np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32)

    def knows(model, image):
        return next(((s.boxes, s.kps + 1) for s in scenes if s.image is image), empty)

    monkeypatch.setattr(made, "_detect", knows)
    scores = made.evaluate(create("retinaface_mnet025"))
    assert scores["recall"] == 1 and scores["false_boxes"] == scores["false_pictures"] == scores["missed"] == 0
    assert scores["points"] > 0
    monkeypatch.setattr(made, "_detect", lambda model, image: (np.float32([[0, 0, 5, 5]]), np.zeros((1, 5, 2))))
    scores = made.evaluate(create("retinaface_mnet025"))
    assert scores["recall"] == 0 and scores["false_pictures"] == 1 and scores["missed"] == 2


def picture(name, points):
    image = np.full((200, 200, 3), 60, np.uint8)
    return Sample(name, lambda: image, np.float32(points), "ibug68", {"inter_ocular": 40.0})


def test_landmark_pictures_have_the_detectors_box_and_the_annotators_points():
    """What else the detector sees in them is neither face nor background; a face it does not find is left out."""
    head = HEAD_68[:, :2] - HEAD_68[:, :2].min(0)
    points = 60 + 80 * head / head.max()
    kps = markups.convert(points[None], "ibug68", "kps5")[0]
    boxes = np.float32([[5, 5, 30, 30], [55, 50, 145, 150]])
    found = Detections(boxes, np.float32([0.9, 0.6]), np.stack([kps / 8, kps + 2]).astype(np.float32))
    dataset = Dataset(datasets.READERS["300w"], "train", (picture("a", points), picture("b", points / 3)))
    (frame,) = landmark_frames(dataset, lambda image: found)
    assert frame.name == "a" and frame.scores.tolist() == [0, 1]
    np.testing.assert_array_equal(frame.boxes, boxes)
    np.testing.assert_allclose(frame.kps[1], kps, atol=1e-4)
    assert frame.image().shape == (200, 200, 3)
