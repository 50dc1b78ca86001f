"""The contact sheet of a model card: the package's portraits in many guises, with the points that users would get.

Only pictures that may be shown are on it: NASA's portrait of Eileen Collins and the US Navy's of Grace Hopper, both in
the public domain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm_export.report.samples import PICTURE, SECOND
from facelm_sdk import Aligner, Face
from facelm_sdk import markup as markups
from facelm_sdk.aligner import MATCHING_IOU
from facelm_sdk.boxes import iou
from facelm_sdk.errors import InputError, MarkupError
from facelm_sdk.images.draw import draw
from facelm_sdk.images.read import read_image
from facelm_sdk.metrics import bounding_box
from facelm_sdk.transform import CropTransform
from facelm_sdk.types import ImageArray

from .turned import Head, fit, turn

Box = NDArray[np.float64]

COLUMNS, TILE, CAPTION = 8, 176, 18
SHOWN = 1.6
"""Side of the part that a tile shows, in longer sides of the face's box."""
YAWS = (-50.0, -35.0, -20.0, 20.0, 35.0, 50.0)
ROLLS = (30.0, -60.0, 90.0, 180.0)
BYTES = 400_000


def contact_sheet(aligner: Aligner, head: Head | None = None) -> ImageArray:
    """Return forty faces (H, W, 3) uint8 BGR, drawn with what ``aligner`` finds: both portraits in each guise.

    As they are, turned to larger yaws, rolled, darkened, blurred and covered. Faces are looked for in every picture
    anew, and a tile says where none is found. Turning takes the morphable ``head``, fitted to the points that are found
    in the portrait; without it, and where these are not 68, the turned faces are left out. Raises InputError where a
    portrait's face is not found.
    """
    tiles = []
    for path in (PICTURE, SECOND):
        image = read_image(path)
        faces = aligner(image)
        if not faces:
            raise InputError(f"no face is found in {path.name}, so no contact sheet can be made")
        for caption, picture, box in _guises(image, faces[0], head):
            tiles.append(_tile(caption, picture, box, aligner(picture)))
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[start : start + COLUMNS], 1) for start in range(0, len(tiles), COLUMNS)]
    return np.concatenate(rows)


def encoded(sheet: ImageArray) -> bytes:
    """Return the sheet as a JPEG of at most 400 kB."""
    for quality in range(92, 0, -4):
        data = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= BYTES:
            break
    return data


def _guises(image: ImageArray, face: Face, head: Head | None) -> Iterator[tuple[str, ImageArray, Box]]:
    """A caption, the picture, and the box (4,) in which its face is to be seen."""
    box = face.bbox.astype(np.float64)
    yield "as it is", image, box
    if head is not None:
        yield from _turned(image, face, head)
    for degrees in ROLLS:
        yield f"rolled {degrees:.0f}", *_rolled(image, box, degrees)
    for part in (0.35, 0.15):
        dark = np.random.default_rng(0).normal(image * part, 3).clip(0, 255)
        yield f"{100 * part:.0f}% of the light", dark.astype(np.uint8), box
    side = float((box[2:] - box[:2]).max())
    for part in (0.02, 0.04):
        yield f"blurred, {100 * part:.0f}%", np.asarray(cv2.GaussianBlur(image, (0, 0), part * side), np.uint8), box
    # Left, top, right and bottom of what is covered, as fractions of the face's box.
    for what, cover in {
        "left half": (-0.1, -0.1, 0.5, 1.1),
        "right half": (0.5, -0.1, 1.1, 1.1),
        "lower half": (-0.1, 0.55, 1.1, 1.1),
        "eyes": (-0.1, 0.28, 1.1, 0.5),
        "mouth": (0.2, 0.68, 0.8, 0.95),
    }.items():
        covered = image.copy()
        corner, end = (
            np.rint(box[:2] + np.array(at) * (box[2:] - box[:2])).astype(int) for at in (cover[:2], cover[2:])
        )
        corner = corner.clip(0)
        covered[corner[1] : end[1], corner[0] : end[0]] = (96, 112, 120)
        yield f"{what} covered", covered, box


def _turned(image: ImageArray, face: Face, head: Head) -> Iterator[tuple[str, ImageArray, Box]]:
    try:
        points = markups.convert(face.landmarks, face.markup, "ibug68").astype(np.float64)
    except MarkupError:
        return
    fitted = fit(head, points)
    for yaw in YAWS:
        one = turn(image, points, fitted, head, yaw - fitted.yaw)
        yield f"turned to {one.yaw:.0f}", one.image, np.concatenate([one.points.min(0), one.points.max(0)])


def _rolled(image: ImageArray, box: Box, degrees: float) -> tuple[ImageArray, Box]:
    """A picture turned clockwise about the face's middle, and the box, which turns with it but stays upright."""
    centre = (box[:2] + box[2:]) / 2
    matrix = cv2.getRotationMatrix2D(centre.tolist(), -degrees, 1.0)
    height, width = image.shape[:2]
    rolled = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(rolled, np.uint8), box


def _tile(caption: str, picture: ImageArray, box: Box, faces: list[Face]) -> ImageArray:
    """The face and what surrounds it, with the points of whatever is found there, over a line of words."""
    size = 2 * TILE  # lines are drawn at twice the size, so that they are fine
    shown = CropTransform.from_box(box, size, scale=SHOWN)
    moved = [
        replace(face, landmarks=np.asarray(shown.apply(face.landmarks), np.float32))
        for face in faces
        if (np.abs(shown.apply(face.landmarks).mean(0) - size / 2) < size / 2).all()
    ]
    drawn = draw(shown.warp(picture), moved, boxes=False)
    tile = np.asarray(cv2.resize(drawn, (TILE, TILE), interpolation=cv2.INTER_AREA), np.uint8)
    words = np.zeros((CAPTION, TILE, 3), np.uint8)
    found = any(iou(box, bounding_box(face.landmarks)) >= MATCHING_IOU for face in faces)
    text, colour = (caption, (230, 230, 230)) if found else (f"{caption}: not found", (80, 160, 255))
    cv2.putText(words, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    return np.concatenate([tile, words])
