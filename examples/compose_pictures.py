"""Makes group.jpg and closeup.jpg from the two portraits, and result.jpg, the README's picture, from all of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from facelm_sdk import Aligner
from facelm_sdk.images.draw import draw

PICTURES = Path(__file__).with_name("pictures")
# portrait, face height in pixels, centre x, centre y, degrees
PLACES = (
    ("collins", 150, 200, 250, -6),
    ("hopper", 130, 470, 230, 5),
    ("collins", 90, 690, 280, 12),
    ("hopper", 64, 840, 330, -8),
    ("collins", 44, 600, 520, 0),
    ("hopper", 32, 720, 530, 4),
    ("collins", 24, 820, 540, 0),
)
FACES = {"collins": (223, 127, 121), "hopper": (253, 195, 210)}  # centre x, centre y and height in the portrait


def group() -> np.ndarray:
    """960x640: cut-outs of the portraits, soft at the edge, on a plain wall."""
    rows = np.linspace(205, 150, 640)[:, None, None]
    canvas = np.repeat(rows, 960, axis=1) * np.array([1.0, 0.99, 0.96])
    for name, height, x, y, degrees in PLACES:
        portrait = cv2.imread(str(PICTURES / f"{name}.jpg"))
        centre_x, centre_y, face = FACES[name]
        scale = height / face
        matrix = cv2.getRotationMatrix2D((centre_x, centre_y), degrees, scale)
        matrix[:, 2] += np.array([x - centre_x, y - centre_y])
        soft = np.zeros(portrait.shape[:2], np.float32)
        cv2.ellipse(soft, (centre_x, centre_y), (int(0.62 * face), int(0.85 * face)), 0, 0, 360, 1.0, -1)
        soft = cv2.GaussianBlur(soft, (0, 0), 0.04 * face)
        small = scale < 0.5
        if small:  # average before sampling, so that small faces do not alias
            portrait = cv2.GaussianBlur(portrait, (0, 0), 0.35 / scale)
        warped = cv2.warpAffine(portrait, matrix, (960, 640), borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(soft, matrix, (960, 640))[..., None]
        canvas = alpha * warped + (1 - alpha) * canvas
    return canvas.round().astype(np.uint8)


def closeup() -> np.ndarray:
    """Hopper's face from brow to chin, touching all four borders."""
    portrait = cv2.imread(str(PICTURES / "hopper.jpg"))
    return cv2.resize(portrait[118:302, 158:348], None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)


def result() -> np.ndarray:
    """What the embedded models find in the heads of both portraits and in the group, side by side, 480 pixels high."""
    aligner = Aligner(flip=True)
    tiles = []
    for name in ("collins", "hopper", "group"):
        image = cv2.imread(str(PICTURES / f"{name}.jpg"))
        if name in FACES:
            x, y, height = FACES[name]
            top, left, side = max(0, y - height), x - height, 2 * height
            image = image[top : top + side, left : left + side]
        scale = 480 / image.shape[0]
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        tiles.append(draw(image, aligner(image)))
    return np.hstack(tiles)


if __name__ == "__main__":
    for path, make in (
        (PICTURES / "group.jpg", group),
        (PICTURES / "closeup.jpg", closeup),
        (PICTURES.parent / "result.jpg", result),
    ):
        cv2.imwrite(str(path), make(), [cv2.IMWRITE_JPEG_QUALITY, 90])
