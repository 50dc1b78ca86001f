"""Reading pictures: every accepted form, and a typed error for every other."""

from __future__ import annotations

import io
import sys
import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image

from facelm_sdk.errors import ImageError, InputError, MissingDependencyError
from facelm_sdk.images.read import read_image

RNG = np.random.default_rng(0)


@pytest.fixture
def picture():
    """(20, 30, 3) BGR, smooth enough for JPEG to keep, each quarter another colour."""
    image = np.zeros((20, 30, 3), np.uint8)
    image[:10, :15] = (250, 10, 10)
    image[:10, 15:] = (10, 250, 10)
    image[10:, :15] = (10, 10, 250)
    image[10:, 15:] = (200, 200, 200)
    return image


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def jpeg(image):
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def test_files_bytes_and_pil(picture, tmp_path):
    path = tmp_path / "ü.png"
    path.write_bytes(png(picture))
    sources = [path, str(path), png(picture), bytearray(png(picture)), memoryview(png(picture))]
    sources.append(Image.fromarray(picture[..., ::-1]))
    for source in sources:
        image = read_image(source)
        np.testing.assert_array_equal(image, picture)
        assert image.flags.c_contiguous and image.dtype == np.uint8


def test_a_bgr_array_is_not_copied(picture):
    assert read_image(picture) is picture or np.shares_memory(read_image(picture), picture)


def test_channel_orders(picture):
    rgb = picture[..., ::-1]
    alpha = np.full((20, 30, 1), 7, np.uint8)
    np.testing.assert_array_equal(read_image(rgb, "rgb"), picture)
    np.testing.assert_array_equal(read_image(np.concatenate([rgb, alpha], 2), "rgb"), picture)
    np.testing.assert_array_equal(read_image(np.concatenate([picture, alpha], 2)), picture)
    with pytest.raises(InputError, match="color is 'bgr' or 'rgb'"):
        read_image(picture, "RGB")


def test_gray(picture, tmp_path):
    gray = picture[..., 0]
    expected = np.repeat(gray[..., None], 3, axis=2)
    for source in (gray, gray[..., None], png(gray), Image.fromarray(gray)):
        np.testing.assert_array_equal(read_image(source), expected)


def test_alpha_and_palette_files(picture):
    rgba = np.concatenate([picture, np.full((20, 30, 1), 90, np.uint8)], axis=2)
    np.testing.assert_array_equal(read_image(png(rgba)), picture)
    pil = Image.fromarray(picture[..., ::-1]).quantize(8)
    assert np.abs(read_image(pil).astype(int) - picture).max() <= 12


def test_16_bits(picture):
    wide = picture.astype(np.uint16) * 257
    for source in (wide, png(wide)):
        np.testing.assert_array_equal(read_image(source), picture)
    gray = Image.open(io.BytesIO(png(wide[..., 0])))
    np.testing.assert_array_equal(read_image(gray)[..., 0], picture[..., 0])


def test_16_bits_are_rounded_without_wider_numbers():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(read_image(values)[..., 0], (values.astype(np.uint32) + 128) // 257)
    wide = np.zeros((1000, 1000, 3), np.uint16)
    tracemalloc.start()
    read_image(wide)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * wide.nbytes


def test_floats(picture):
    for dtype in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(read_image((picture / 255).astype(dtype)), picture)


def test_anything_with_array(picture):
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return picture

    np.testing.assert_array_equal(read_image(Tensor()), picture)


@pytest.mark.parametrize(
    "array",
    [
        np.full((4, 4, 3), 3.0),
        np.full((4, 4, 3), -0.1),
        np.full((4, 4, 3), np.nan),
        np.zeros((4, 4, 3), bool),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((3, 40, 40), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((0, 0), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 0, 3), np.float32),
        np.array(["a"]),
        [[1, 2], [3, 4]],
        None,
        3,
    ],
    ids=repr,
)
def test_refused_values(array):
    with pytest.raises(ImageError, match=r"accepted are|empty"):
        read_image(array)


def test_one_pixel():
    assert read_image(np.zeros((1, 1), np.uint8)).shape == (1, 1, 3)


def test_refused_files(picture, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("this is not a picture")
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    for path, message in [
        (tmp_path / "missing.jpg", "cannot read .*missing.jpg: No such file"),
        (tmp_path, "cannot read"),
        (text, "text.jpg: not a picture"),
        (empty, "empty.png: the file is empty"),
        ("a\0b", "cannot read"),
    ]:
        with pytest.raises(ImageError, match=message):
            read_image(path)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("progressive", [0, 1])
def test_truncated_jpeg(part, progressive):
    noisy = RNG.integers(0, 255, (120, 160, 3), np.uint8)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = cv2.imencode(".jpg", noisy, options)[1].tobytes()
    assert read_image(data).shape == (120, 160, 3)
    with pytest.raises(ImageError, match="truncated"):
        read_image(data[: int(len(data) * part)])


def test_truncated_jpeg_with_a_whole_thumbnail(picture):
    """The end marker of the thumbnail inside EXIF does not count, and what follows the picture does not hurt."""
    data, thumbnail = jpeg(RNG.integers(0, 255, (60, 60, 3), np.uint8)), jpeg(picture)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + segment + data[2:]
    assert read_image(whole + b"trailing bytes").shape == (60, 60, 3)
    with pytest.raises(ImageError, match="truncated"):
        read_image(whole[:-50])


@pytest.mark.parametrize("between", [b"\xff\x01", b"\xff\xff\xff", b"\xff\xd0", b"\xff\x01\xff\x01", b"garbage"])
def test_markers_without_a_segment(between):
    """TEM, fill bytes and what decoders step over make a JPEG no truncated one."""
    data = jpeg(RNG.integers(0, 255, (60, 60, 3), np.uint8))
    frame = data.index(b"\xff\xc0")
    for place in (2, frame):
        odd = data[:place] + between + data[place:]
        if between == b"garbage" and place == 2:
            continue  # a file of OpenCV's begins with three bytes
        np.testing.assert_array_equal(read_image(odd), read_image(data))
        with pytest.raises(ImageError, match="truncated"):
            read_image(odd[:-40])


def test_truncated_png(picture):
    data = png(RNG.integers(0, 255, (60, 60, 3), np.uint8))
    for cut in (4, 20, 4000):
        with pytest.raises(ImageError, match="truncated"):
            read_image(data[:-cut])


def test_truncated_pil(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(jpeg(RNG.integers(0, 255, (90, 90, 3), np.uint8))[:-500])
    with Image.open(path) as image, pytest.raises(ImageError, match="PIL"):
        read_image(image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(picture, orientation, tmp_path):
    turned = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    Image.fromarray(np.ascontiguousarray(turned[..., ::-1])).save(path, quality=98, subsampling=0, exif=exif)
    for source in (path, path.read_bytes(), Image.open(path)):
        image = read_image(source)
        assert image.shape == picture.shape
        assert np.abs(image.astype(int) - picture)[[3, 3, 16, 16], [4, 25, 4, 25]].max() < 12


def test_panorama_file(tmp_path):
    wide = np.zeros((300, 30000, 3), np.uint8)
    assert read_image(jpeg(wide)).shape == (300, 30000, 3)


def test_above_the_limit():
    """A PNG header that claims 2^20 x 2^20 pixels."""
    import struct
    import zlib

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 2**20 - 1, 2**20 - 1, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match=r"1048575 x 1048575 pixels are more than 178,956,970"):
        read_image(data)


def test_missing_opencv(picture, monkeypatch):
    data = png(picture)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "facelm-sdk\[cpu\]"'):
        read_image(data)


def heif(image, suffix, orientation=1):
    """The file of an RGB picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    if suffix == ".avif":
        Image.fromarray(image).save(file, "AVIF", quality=95, exif=exif)
    else:
        pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
        pillow_heif.from_pillow(Image.fromarray(image)).save(file, quality=95, exif=exif.tobytes())
    return file.getvalue()


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
def test_heif_is_read_upright(picture, suffix):
    picture = cv2.resize(picture, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST)  # smaller ones are stored larger
    data = heif(np.ascontiguousarray(np.rot90(picture)[..., ::-1]), suffix, orientation=6)
    image = read_image(data)
    assert image.shape == picture.shape
    assert np.abs(image.astype(int) - picture)[[24, 24, 128, 128], [32, 200, 32, 200]].max() < 12
    with pytest.raises(ImageError, match="240 pixels are more than 1,000"):
        read_image(data, max_pixels=1000)
    with pytest.raises(ImageError, match=r"^300 bytes: (not a picture|Pillow cannot decode it)"):
        read_image(data[:300])


def test_heif_without_its_plug_ins(picture, monkeypatch, caplog):
    turned, heic = heif(picture, ".avif", orientation=6), heif(picture, ".heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    with pytest.raises(ImageError, match=r'HEIC needs pillow-heif .*pip install "facelm-sdk\[heif\]"'):
        read_image(heic)
    try:
        assert read_image(turned).shape == picture.shape  # by OpenCV, on its side
        assert "is not turned upright: AVIF needs Pillow 11.3 or newer" in caplog.text
    except ImageError as error:
        assert "AVIF needs Pillow 11.3 or newer" in str(error)
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: None)
    with pytest.raises(ImageError, match=r"AVIF needs Pillow 11\.3 or newer"):
        read_image(turned)
