"""Made-up faces and pictures whose points can be found again by their colour."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facelm_sdk import markup as markups
from facelm_sdk.transform import ARCFACE_112
from facelm_training.data import Frame, LandmarkFaces

MARKUP = markups.get("ibug68")
LEFT, RIGHT = MARKUP.outer_eye_corners
BLUE, RED = (255, 0, 0), (0, 0, 255)


def blob(image: np.ndarray, point: np.ndarray, colour: tuple[int, int, int], sigma: float = 2.0) -> None:
    """A bright spot whose centroid is ``point``, sub-pixel."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    weight = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * sigma**2))[..., None]
    image[:] = np.maximum(image, np.round(weight * np.array(colour)).astype(np.uint8))


def centroid(channel: np.ndarray) -> np.ndarray:
    """(x, y) of what is bright in (H, W)."""
    weight = channel.astype(np.float64)
    y, x = np.mgrid[: channel.shape[0], : channel.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def landmarks_around(five: np.ndarray) -> np.ndarray:
    """68 points (68, 2) that five points (5, 2) belong to: each part on an ellipse about its own."""
    eyes = np.linalg.norm(five[1] - five[0])

    def ellipse(centre: np.ndarray, count: int, width: float, height: float, start: float = np.pi) -> np.ndarray:
        angle = start + 2 * np.pi * np.arange(count) / count
        return centre + eyes * np.stack([width * np.cos(angle), height * np.sin(angle)], 1)

    jaw = five[2] + eyes * np.stack([-np.cos(np.linspace(0, np.pi, 17)), 1.1 * np.sin(np.linspace(0, np.pi, 17))], 1)
    mouth, width = five[3:].mean(0), (five[4, 0] - five[3, 0]) / 2 / eyes
    return np.concatenate(
        [
            jaw,
            five[0] + eyes * np.stack([np.linspace(-0.3, 0.3, 5), np.full(5, -0.3)], 1),
            five[1] + eyes * np.stack([np.linspace(-0.3, 0.3, 5), np.full(5, -0.3)], 1),
            five[2] - eyes * np.stack([np.zeros(4), np.linspace(0.5, 0, 4)], 1),
            five[2] + eyes * np.stack([np.linspace(-0.2, 0.2, 5), np.full(5, 0.1)], 1),
            ellipse(five[0], 6, 0.2, 0.08),
            ellipse(five[1], 6, 0.2, 0.08),
            ellipse(mouth, 12, width, 0.2),
            ellipse(mouth, 8, 0.8 * width, 0.1),
        ]
    )


@pytest.fixture
def faces() -> LandmarkFaces:
    """Black pictures of 256 px: a blue spot on the image-left outer eye corner, a red one on the image-right one."""
    rng = np.random.default_rng(0)
    template = np.asarray(ARCFACE_112)
    images, kps, points = [], [], []
    for _ in range(6):
        scale, place = rng.uniform(1.0, 1.3), rng.uniform(50, 70, 2)
        five = template * scale + place
        landmarks = landmarks_around(five)
        image = np.zeros((256, 256, 3), np.uint8)
        blob(image, landmarks[LEFT], BLUE)
        blob(image, landmarks[RIGHT], RED)
        images.append(image)
        kps.append(five)
        points.append(landmarks)
    stacked = np.float32(points)
    return LandmarkFaces(
        images, [f"face{i}.jpg" for i in range(6)], np.float32(kps), stacked, np.ones((6, 68), bool), np.ones(6)
    )


@pytest.fixture
def frames() -> list[Frame]:
    """Two pictures with a face (eyes as above), one of them with a doubtful second one, and one without any."""

    def encoded(image: np.ndarray) -> bytes:
        return cv2.imencode(".png", image)[1].tobytes()

    def face(box: tuple[float, ...]) -> np.ndarray:
        inside = np.array([(0.31, 0.42), (0.69, 0.42), (0.50, 0.62), (0.35, 0.80), (0.65, 0.80)])
        return np.array(box[:2]) + inside * (np.array(box[2:]) - box[:2])

    frames = []
    for name, boxes, scores in (
        ("ytf_0.jpg", [(60, 50, 140, 150)], [0.99]),
        ("ytf_1.jpg", [(80, 60, 150, 140), (200, 40, 230, 80)], [0.95, 0.6]),
        ("bsds_0.jpg", [], []),
    ):
        image = np.zeros((240, 320, 3), np.uint8)
        image[..., 1] = 40
        kps = np.array([face(box) for box in boxes]).reshape(-1, 5, 2)
        for five in kps[:1]:
            blob(image, five[0], BLUE, 3)
            blob(image, five[1], RED, 3)
        frames.append(
            Frame(name, encoded(image), np.float32(boxes).reshape(-1, 4), np.float32(scores), kps.astype(np.float32))
        )
    return frames
