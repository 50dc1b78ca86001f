"""Pictures decoded at reduced scale: what may be, where its pixels lie, and what an Aligner finds in it."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import facelm_sdk
from facelm_sdk import Aligner, Detector, cli
from facelm_sdk.errors import ImageError
from facelm_sdk.images import jpeg, picture
from facelm_sdk.images.picture import Picture
from facelm_sdk.images.read import read_image
from facelm_sdk.transform import CropTransform

PORTRAIT = Path(facelm_sdk.__file__).parent / "assets" / "portrait.jpg"
RNG = np.random.default_rng(0)


def encoded(image, orientation=None, mode="RGB", **options):
    """A JPEG of a BGR picture as stored."""
    exif = Image.Exif()
    if orientation is not None:
        exif[0x010F], exif[0x0112] = "maker", orientation
    file = io.BytesIO()
    stored = Image.fromarray(np.ascontiguousarray(image[..., ::-1])).convert(mode)
    stored.save(file, "jpeg", **{"quality": 92, "exif": exif, **options})
    return file.getvalue()


def disc(width, height, centre=(330, 170)):
    return cv2.circle(np.zeros((height, width, 3), np.uint8), centre, 60, (255, 255, 255), -1, cv2.LINE_AA)


def centroid(image):
    weights = image[..., 1].astype(np.float64)
    y, x = np.indices(weights.shape)
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


@pytest.fixture
def decodes(monkeypatch):
    """The reductions of the decodes that were made."""
    made = []

    def decode(data, what, reduction=1):
        made.append(reduction)
        return original(data, what, reduction)

    original = picture.decode
    monkeypatch.setattr(picture, "decode", decode)
    return made


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize("size", [(600, 400), (608, 392)])
def test_pixels_lie_where_they_should(orientation, size):
    data = encoded(disc(*size), orientation)
    full = read_image(data)
    for reduction in (2, 4, 8):
        one = Picture(data)
        assert (one.height, one.width) == full.shape[:2]
        view = one.view(reduction + 0.5)
        assert view.reduction == reduction
        assert view.image.shape[:2] == tuple(side // reduction for side in full.shape[:2])
        np.testing.assert_allclose(view.to_picture(centroid(view.image)), centroid(full), atol=0.1)


@pytest.mark.parametrize(
    ("size", "factors"), [((604, 400), (1, 2, 4, 4)), ((606, 400), (1, 2, 2, 2)), ((601, 400), (1, 1, 1, 1))]
)
def test_both_sides_are_divided(size, factors):
    data = encoded(disc(*size))
    assert tuple(Picture(data).view(coarsest).reduction for coarsest in (1.9, 2, 4, 9)) == factors


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_crops_of_the_reduced_picture(orientation):
    """Crops of half the reduced picture's scale and more, and of far less, which are averaged."""
    noise = cv2.GaussianBlur(RNG.random((404, 604, 3), np.float32), (0, 0), 25)
    image = cv2.normalize(noise, None, 20, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    data = encoded(image, orientation, quality=98)
    full, one = read_image(data), Picture(data)
    for scale, angle in ((0.22, 0.3), (0.12, -1.0), (0.06, 2.0)):
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centre = np.array([one.width, one.height]) / 2 + 5
        transform = CropTransform(np.concatenate([linear, (11.5 - linear @ centre)[:, None]], axis=1), 24)
        crop = one.view(4).warp(transform, out=np.empty((24, 24, 3), np.uint8))
        expected = transform.warp(full)
        inside = cv2.erode(np.uint8(expected.min(axis=2) > 0), np.ones((3, 3))) > 0
        assert inside.mean() > 0.3
        assert np.abs(crop.astype(int) - expected)[inside].mean() < 1


def test_what_is_decoded_is_kept_until_finer_is_needed(decodes):
    one = Picture(encoded(disc(640, 400)))
    assert one.decoded(8) is None and decodes == []
    coarse = one.view(8)
    assert one.view(9) is coarse and one.decoded(8) is coarse and one.decoded(7.9) is None
    fine = one.view(3.9)
    assert fine.reduction == 2 and one.view(8) is fine
    assert one.view(0.3) is one.view() and one.view().image.shape == (400, 640, 3)
    assert decodes == [8, 2, 1]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk(mode):
    data = encoded(disc(604, 404), 6, mode)
    view = Picture(data).view(4)
    assert view.image.shape == (151, 101, 3) and view.image.dtype == np.uint8
    expected = cv2.resize(read_image(data), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    assert np.abs(view.image.astype(int) - expected).mean() < 1


def test_everything_else_is_read_in_full(tmp_path):
    image = disc(640, 400)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), image)
    pil = Image.fromarray(image)
    for source in (image, path, path.read_bytes(), pil, encoded(image, progressive=True)):
        one = Picture(source)
        assert one.decoded().reduction == 1 and one.view(8) is one.decoded()
        assert (one.width, one.height) == (640, 400)
    assert np.shares_memory(Picture(image).view(8).image, image)


def test_truncated_and_missing_files(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded(RNG.integers(0, 255, (1600, 2600, 3), np.uint8))[:-5000])
    with pytest.raises(ImageError, match=r"cut\.jpg: the JPEG is truncated"):
        Picture(path).view(2)
    with pytest.raises(ImageError, match="cannot read"):
        Picture(tmp_path / "none.jpg")


def test_a_header_read_in_another_way_is_decoded_in_full(monkeypatch):
    """As where OpenCV and this package disagree about a damaged orientation."""
    data = encoded(disc(640, 400))
    monkeypatch.setattr(jpeg, "_exif_orientation", lambda tiff: 6)
    one = Picture(encoded(disc(640, 400), 1))
    assert (one.width, one.height) == (400, 640)
    assert one.view(4).reduction == 1 and (one.width, one.height) == (640, 400)
    np.testing.assert_array_equal(one.view().image, read_image(data))


@pytest.mark.parametrize("tiff", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 30])
def test_damaged_exif_is_no_orientation(tiff):
    data = encoded(disc(64, 40))
    body = b"Exif\0\0" + tiff
    segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    assert jpeg.header(data[:2] + segment + data[2:]) == jpeg.Header(64, 40, 1)


def test_headers():
    data = encoded(disc(640, 400), 8)
    assert jpeg.header(data) == jpeg.Header(640, 400, 8)
    assert jpeg.header(data).upright == (400, 640)
    for cut in (0, 1, 3, 30):
        assert jpeg.header(data[:cut]) is None


@pytest.fixture(scope="module")
def portrait():
    """24 megapixels: the picture as decoded from its JPEG, and the JPEG."""
    large = cv2.resize(read_image(PORTRAIT), (6000, 4000), interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
    return read_image(data), data


def eye_distance(face):
    return float(np.linalg.norm(face.kps[1] - face.kps[0]))


def test_landmarks_of_a_large_portrait(portrait, decodes):
    image, data = portrait
    aligner = Aligner(profile=True, max_faces=1)
    (expected,), (face,) = aligner(image), aligner(data)
    assert decodes == [4]
    assert "read picture" in aligner.profile.last
    distances = np.linalg.norm(face.landmarks - expected.landmarks, axis=1) / eye_distance(expected)
    assert distances.max() < 0.02 and distances.mean() < 0.008
    np.testing.assert_allclose(face.bbox, expected.bbox, atol=0.03 * eye_distance(expected))
    np.testing.assert_allclose(face.crop(image), expected.crop(image), atol=60)


def test_given_points_choose_the_scale(portrait, decodes):
    image, data = portrait
    aligner = Aligner(detector=None)
    kps = Detector()(image).kps[:1]
    (expected,), (face,) = aligner(image, kps=kps), aligner(data, kps=kps)
    assert decodes == [8]
    np.testing.assert_array_equal(face.transform.matrix, expected.transform.matrix)
    distances = np.linalg.norm(face.landmarks - expected.landmarks, axis=1) / eye_distance(expected)
    assert distances.max() < 0.02


@pytest.fixture(scope="module")
def colours(scene):
    """A JPEG of 5200x3000, and what it holds: a blue face of 2000 pixels and a green one of a given side."""

    @functools.cache
    def build(side):
        data = encoded(scene(5200, 3000, (300, 400, 2300, 2400), (3000, 500, 3000 + side, 500 + side)), subsampling=0)
        return read_image(data), data

    return build


@pytest.mark.parametrize(("side", "made"), [(1200, [4]), (48, [4, 2]), (24, [4, 1])])
def test_small_faces_are_decoded_finer(landmark_model, detector_model, colours, decodes, side, made):
    """Crops of 32 pixels show 1.7 times the box of this detector's faces."""
    image, data = colours(side)
    aligner = Aligner(landmark_model(), detector_model(), det_size=1300)
    expected, found = aligner(image), aligner(data)
    assert decodes == made
    assert len(found) == len(expected) == 2
    for face, known in zip(found, expected, strict=True):
        np.testing.assert_allclose(face.bbox, known.bbox, atol=0.1)
        np.testing.assert_allclose(face.landmarks, known.landmarks, atol=0.5)


def test_given_boxes_are_looked_into_in_full(landmark_model, detector_model, colours, decodes):
    image, data = colours(1200)
    aligner = Aligner(landmark_model(), detector_model())
    box = [2990, 490, 4210, 1710]
    (expected,), (face,) = aligner(image, boxes=box), aligner(data, boxes=box)
    assert decodes == [1]
    np.testing.assert_array_equal(face.landmarks, expected.landmarks)


@pytest.mark.parametrize(
    ("det_size", "made"),
    [("auto", [4]), (640, [8]), (1300, [4]), (1301, [2]), (2600, [2]), (2601, [1]), ((640, 1000), [4])],
)
def test_never_coarser_than_the_detector_looks(landmark_model, detector_model, colours, decodes, det_size, made):
    _, data = colours(1200)
    detector = Detector(detector_model(), det_size=det_size)
    seen = []
    detector.session.run = lambda feeds, run=detector.session.run: seen.append(feeds["image"].shape) or run(feeds)
    Aligner(landmark_model(), detector)(data)
    assert decodes == made
    if isinstance(det_size, int):
        assert max(seen[0][1:3]) == det_size


def test_long_pictures_keep_their_short_side(landmark_model, detector_model, decodes):
    """At 1/8 both sides would suffice for 1280 on the long side, but not for 640 on the short one."""
    Aligner(landmark_model(), detector_model())(encoded(disc(10400, 1400)))
    assert decodes == [2]


def test_the_command_draws_in_full(landmark_model, detector_model, colours, decodes, tmp_path):
    image, data = colours(1200)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    command = ["align", str(path), "--model", str(landmark_model()), "--detector", str(detector_model())]
    result = CliRunner().invoke(cli.app, [*command, "--json-lines", "-"])
    assert result.exit_code == 0 and decodes == [4]
    record = json.loads(result.stdout)
    assert (record["width"], record["height"], len(record["faces"])) == (5200, 3000, 2)
    result = CliRunner().invoke(cli.app, [*command, "-o", str(tmp_path / "out"), "--draw", "--crops", "112"])
    assert result.exit_code == 0 and decodes == [4, 1]
    assert read_image(tmp_path / "out" / "a.jpg").shape == image.shape
    assert read_image(tmp_path / "out" / "crops" / "a_0.png").shape == (112, 112, 3)
