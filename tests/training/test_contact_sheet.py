"""The contact sheet: every guise of both portraits, in a picture small enough for a card."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facelm_sdk import Aligner, Detector
from facelm_sdk.errors import InputError
from facelm_sdk.metrics import bounding_box
from facelm_training import contact_sheet as sheets
from facelm_training.turned import FILE, Head


@pytest.fixture(scope="module")
def aligner():
    return Aligner(variant="fp32", threads=1)


def rows_of_tiles(sheet):
    high, wide = sheets.TILE + sheets.CAPTION, sheets.TILE
    assert sheet.shape[0] % high == 0 and sheet.shape[1] == sheets.COLUMNS * wide
    corners = [(x, y) for y in range(0, sheet.shape[0], high) for x in range(0, sheet.shape[1], wide)]
    return [sheet[y : y + high, x : x + wide] for x, y in corners]


def test_without_the_head_nothing_is_turned(aligner):
    sheet = sheets.contact_sheet(aligner)
    tiles = rows_of_tiles(sheet)
    shown = [tile for tile in tiles if tile.any()]
    assert len(shown) == 28 and len(tiles) == 32
    assert len({tile.tobytes() for tile in shown}) == 28, "each guise is another"
    data = sheets.encoded(sheet)
    assert data.startswith(b"\xff\xd8") and len(data) <= sheets.BYTES


def test_noise_is_made_small_enough_too():
    noise = np.random.default_rng(0).integers(0, 255, (970, 1408, 3), np.uint8)
    assert len(sheets.encoded(noise)) <= sheets.BYTES


def test_rolled_pictures_turn_clockwise_about_the_face():
    image = np.zeros((120, 100, 3), np.uint8)
    image[20:24, 48:52] = 255  # above the middle of the face
    rolled, box = sheets._rolled(image, np.array([30.0, 40.0, 70.0, 80.0]), 90)
    assert box.tolist() == [30, 40, 70, 80]
    y, x = np.argwhere(rolled[..., 0] > 127).mean(0)
    assert x == pytest.approx(50 + 38.5, abs=1) and y == pytest.approx(60, abs=1)


def test_a_face_that_is_not_found_is_said_to_be(aligner):
    black = np.zeros((200, 200, 3), np.uint8)
    box = np.array([50.0, 50, 150, 150])
    blue, _, red = cv2.split(sheets._tile("black", black, box, aligner(black))[sheets.TILE :])
    assert red.max() > blue.max() + 90, "told in another colour"
    image = sheets.read_image(sheets.PICTURE)
    faces = aligner(image)
    tile = sheets._tile("plain", image, bounding_box(faces[0].landmarks), faces)
    blue, _, red = cv2.split(tile[sheets.TILE :])
    np.testing.assert_array_equal(blue, red)


def test_a_portrait_must_have_its_face(landmark_model, detector_model, monkeypatch):
    monkeypatch.setattr(sheets, "read_image", lambda path: np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match=r"no face is found in collins\.jpg"):
        sheets.contact_sheet(Aligner(landmark_model(), Detector(detector_model())))


@pytest.mark.data
def test_turned_faces_are_found(data_dir, aligner):
    """Up to 35 degrees the points lie near those that the turned head has."""
    image = sheets.read_image(sheets.PICTURE)
    face = aligner(image)[0]
    head = Head(data_dir / FILE)
    guises = [guise for guise in sheets._turned(image, face, head) if "50" not in guise[0]]
    assert [caption for caption, *_ in guises] == [f"turned to {yaw}" for yaw in (-35, -20, 20, 35)]
    for _, picture, box in guises:
        found = bounding_box(aligner(picture)[0].landmarks)
        assert np.abs(found - box).max() < 0.15 * (box[2:] - box[:2]).max()
