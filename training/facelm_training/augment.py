"""Augmentations on uint8 BGR pictures. Every draw comes from the generator given, so a run can be repeated."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm_sdk.transform import CropTransform

Image = NDArray[np.uint8]


def photometric(image: Image, rng: np.random.Generator, strength: float = 1.0, grey: float = 0.12) -> Image:
    """Contrast, brightness, gamma and colour cast through one table per channel; grey with probability ``grey``."""
    x = np.arange(256, dtype=np.float32) / 255
    gain, bias = np.exp(rng.normal(0, 0.2 * strength)), rng.normal(0, 0.1 * strength)
    gamma = np.exp(rng.normal(0, 0.25 * strength))
    cast = np.exp(rng.normal(0, 0.06 * strength, 3))
    table = np.clip(((x[:, None] ** gamma) - 0.5) * gain * cast + 0.5 + bias, 0, 1)
    if strength:  # else the table would round
        image = cv2.LUT(image, (255 * table).astype(np.uint8).reshape(256, 1, 3))  # type: ignore[assignment]
    if rng.random() < grey:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)  # type: ignore[assignment]
    return image


def channel_gains(image: Image, rng: np.random.Generator, amount: float) -> Image:
    """Each colour channel times its own factor of 1 - ``amount`` to 1 + ``amount``, as FAN's public code has it."""
    gains = rng.uniform(1 - amount, 1 + amount, 3)
    table = np.clip(np.round(np.arange(256)[:, None] * gains), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table.reshape(256, 1, 3))  # type: ignore[return-value]


def degrade(image: Image, rng: np.random.Generator, lowest: float = 0.25) -> Image:
    """What cameras and codecs do: loss of resolution down to ``lowest``, motion or focus blur, noise, JPEG."""
    height, width = image.shape[:2]
    if rng.random() < 0.4:
        factor = rng.uniform(lowest, 0.9)
        small = cv2.resize(
            image, (max(2, int(width * factor)), max(2, int(height * factor))), None, 0, 0, cv2.INTER_AREA
        )
        up = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
        image = cv2.resize(small, (width, height), None, 0, 0, up)  # type: ignore[assignment]
    draw = rng.random()
    if draw < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.0))  # type: ignore[assignment]
    elif draw < 0.25:
        length = int(rng.integers(3, 9))
        kernel = np.zeros((length, length), np.float32)
        angle, half = rng.uniform(0, np.pi), (length - 1) / 2
        step = half * np.array([np.cos(angle), np.sin(angle)])
        a, b = np.round(half - step).astype(int), np.round(half + step).astype(int)
        cv2.line(kernel, a.tolist(), b.tolist(), 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())  # type: ignore[assignment]
    if rng.random() < 0.2:
        noise = rng.normal(0, rng.uniform(2, 14), (height, width, 1)).astype(np.float32)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        _, blob = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 80))])
        image = cv2.imdecode(blob, cv2.IMREAD_COLOR)  # type: ignore[assignment]
    return image


def write_text(image: Image, rng: np.random.Generator, keep_clear: NDArray[np.float32]) -> None:
    """Captions and logos: a few random strings and rings drawn into ``image``, none over the boxes (k, 4) given.

    Letters have eyes and mouths for a small detector, and scenery alone teaches it no better.
    """
    size = image.shape[0]
    letters = "ABCDEFGHIKLMNOPRSTUVWXYZabcdeghnopstuvwxyz0123456789.:&@"
    for _ in range(int(rng.integers(1, 7))):
        text = "".join(letters[i] for i in rng.integers(0, len(letters), int(rng.integers(1, 9))))
        font, scale = int(rng.integers(0, 8)), float(np.exp(rng.uniform(np.log(0.3), np.log(2.5))))
        thick = int(rng.integers(1, 2 + int(2 * scale)))
        (width, height), _ = cv2.getTextSize(text, font, scale, thick)
        x, y = int(rng.integers(-width // 2, size)), int(rng.integers(0, size + height))
        box = np.array([x - 3, y - 1.3 * height, x + width + 3, y + 0.4 * height])
        centre, radius = (x + width // 2, y - height // 2), max(2, height)
        low, high = np.minimum(box[:2], np.subtract(centre, radius)), np.maximum(box[2:], np.add(centre, radius))
        if ((keep_clear[:, :2] <= high + 1) & (keep_clear[:, 2:] >= low - 1)).all(1).any():
            continue
        ink, ground = (rng.integers(0, 256, 3).tolist() for _ in range(2))
        if rng.random() < 0.4:
            cv2.rectangle(image, box[:2].astype(int).tolist(), box[2:].astype(int).tolist(), ground, -1)
        if rng.random() < 0.2:
            cv2.circle(image, centre, radius, ground, -1)
        cv2.putText(image, text, (x, y), font, scale, ink, thick, cv2.LINE_AA)


def draw_faces(image: Image, rng: np.random.Generator, keep_clear: NDArray[np.float32]) -> None:
    """Round signs with two eyes and a mouth drawn into ``image``, none over the boxes (k, 4) given."""
    size = image.shape[0]
    for _ in range(int(rng.integers(1, 4))):
        radius = float(np.exp(rng.uniform(np.log(5), np.log(size / 3))))
        centre = rng.uniform(0, size, 2)
        if ((keep_clear[:, :2] <= centre + radius) & (keep_clear[:, 2:] >= centre - radius)).all(1).any():
            continue
        skin, ink = (rng.integers(0, 256, 3).tolist() for _ in range(2))
        angle, tall = float(rng.normal(0, 20)), rng.uniform(0.8, 1.3)
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))

        def place(x: float, y: float) -> tuple[int, int]:
            right, down = centre + radius * np.array([cos * x - sin * y, sin * x + cos * y])  # noqa: B023
            return int(right), int(down)

        thick = max(1, int(radius / 10))
        axes = (max(1, int(radius)), max(1, int(radius * tall)))
        cv2.ellipse(image, place(0, 0), axes, angle, 0, 360, skin, -1 if rng.random() < 0.7 else thick, cv2.LINE_AA)
        eye = max(1, int(radius * rng.uniform(0.08, 0.2)))
        for x in (-0.38, 0.38):
            cv2.circle(image, place(x, -0.25), eye, ink, -1 if rng.random() < 0.7 else thick, cv2.LINE_AA)
        mouth, curve = (max(1, int(radius * rng.uniform(0.25, 0.5))), max(1, int(radius * rng.uniform(0.05, 0.35))))
        start = 180 * int(rng.integers(2))
        cv2.ellipse(image, place(0, 0.35), (mouth, curve), angle, start, start + 180, ink, thick, cv2.LINE_AA)


def occlude(image: Image, rng: np.random.Generator, other: Image) -> Image:
    """Cover a random rectangle of up to a third of the side with a flat colour or a piece of ``other`` (same size)."""
    size = image.shape[0]
    width, height = (int(v) for v in rng.uniform(0.08, 0.38, 2) * size)
    x, y = int(rng.integers(0, size - width)), int(rng.integers(0, size - height))
    image = image.copy()
    if rng.random() < 0.5:
        image[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    else:
        u, v = int(rng.integers(0, size - width)), int(rng.integers(0, size - height))
        image[y : y + height, x : x + width] = other[v : v + height, u : u + width]
    return image


def jitter_matrix(
    matrix: NDArray[np.float64],  # (2, 3) picture -> crop
    size: int,
    rng: np.random.Generator,
    *,
    degrees: float = 12.0,
    scale: float = 0.08,
    shift: float = 0.03,
    uniform: bool = False,
) -> NDArray[np.float64]:
    """The crop's matrix, then a random rotation, scale and shift about the crop's centre.

    The amounts are standard deviations, with a few faces far off, or bounds where ``uniform``.
    """
    spread = 1.8 if not uniform and rng.random() < 0.15 else 1.0

    def draw(amount: float) -> float:
        return float(rng.uniform(-amount, amount) if uniform else rng.normal(0, amount * spread))

    angle = np.deg2rad(draw(degrees))
    zoom = np.exp(draw(scale))
    centre = (size - 1) / 2
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    moved = centre - linear @ np.array([centre, centre]) + (draw(shift * size), draw(shift * size))
    return np.concatenate([linear @ matrix[:, :2], (linear @ matrix[:, 2] + moved)[:, None]], axis=1)


def cover_part(
    image: Image,
    points: NDArray[np.float32],  # (L, 2), of the face in it
    rng: np.random.Generator,
    other: Image | None = None,
    *,
    part: float = 0.5,
) -> tuple[Image, NDArray[np.bool_]]:
    """Cover ``part`` of a face's box from a random side, in a flat colour, blurred noise or a piece of ``other``.

    Returns the picture, and which points (L,) are covered. The cover's edge is that of a box turned by some degrees.
    """
    size = image.shape[0]
    low, high = points.min(0), points.max(0)
    angle = np.deg2rad(90 * int(rng.integers(4)) + rng.uniform(-15, 15))
    away = np.array([np.cos(angle), np.sin(angle)])
    y, x = np.mgrid[:size, : image.shape[1]]
    pixels = np.stack([x, y], -1).astype(np.float32)
    centre, half = (low + high) / 2, (high - low) / 2
    reach = float(np.abs(away) @ half)
    margin = 0.15 * half
    inside = ((pixels >= low - margin) & (pixels <= high + margin)).all(-1)
    edge = reach * (1 - 2 * part)
    mask = inside & ((pixels - centre) @ away > edge)
    covered = (points - centre) @ away > edge
    fill: NDArray[np.float32]
    draw = rng.random()
    if draw < 0.4 and other is not None:
        fill = other.astype(np.float32)
    elif draw < 0.7:
        fill = np.broadcast_to(rng.uniform(0, 255, 3).astype(np.float32), image.shape)
    else:
        noise = rng.uniform(0, 255, (int(rng.integers(2, 24)), int(rng.integers(2, 24)), 3)).astype(np.float32)
        fill = cv2.resize(noise, (image.shape[1], size), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return np.where(mask[..., None], fill, image).astype(np.uint8), np.asarray(covered)


def any_square(
    image: Image, size: int, rng: np.random.Generator, angle: float, sides: tuple[float, float], margin: float
) -> Image:
    """A square (size, size, 3) of any place in a picture, turned by ``angle`` radians.

    Its side is, log-uniformly, between ``sides`` times the picture's short side; its centre is ``margin`` (a part of
    width and height) or more from the picture's edges.
    """
    height, width = image.shape[:2]
    side = min(height, width) * float(np.exp(rng.uniform(*np.log(sides))))
    linear = size / side * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = (size - 1) / 2 - linear @ (rng.uniform(margin, 1 - margin, 2) * (width, height))
    return CropTransform(np.concatenate([linear, shift[:, None]], 1), size).warp(image)
