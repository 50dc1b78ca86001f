"""Sizes told by headers against what OpenCV decodes, and files that would take far more memory than they have bytes."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from facelm_sdk import Aligner, cli
from facelm_sdk.errors import ImageError, InputError
from facelm_sdk.images import header, jpeg
from facelm_sdk.images.picture import Picture
from facelm_sdk.images.read import MAX_PIXELS, read_image

PICTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8), (0, 0), 2)


def by_opencv(suffix, *options):
    image = (PICTURE / 256).astype(np.float32) if suffix in (".hdr", ".pfm") else PICTURE
    return cv2.imencode(suffix, image[..., 0] if suffix in (".pgm", ".pbm") else image, options)[1].tobytes()


def by_pil(kind, **options):
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, kind, **options)
    return file.getvalue()


def os2_bitmap():
    return (
        b"BM" + struct.pack("<IHHI", 26 + 37 * 160, 0, 0, 26) + struct.pack("<IHHHH", 12, 53, 37, 1, 24) + bytes(5920)
    )


FILES = {
    "jpeg": by_opencv(".jpg"),
    "progressive jpeg": by_opencv(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "png": by_opencv(".png"),
    "lossy webp": by_pil("webp", quality=50),
    "lossless webp": by_pil("webp", lossless=True),
    "webp with exif": by_pil("webp", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0"),
    "bmp": by_opencv(".bmp"),
    "os2 bmp": os2_bitmap(),
    "tiff": by_opencv(".tif"),
    "plain tiff": by_pil("tiff"),
    "ppm": by_opencv(".ppm"),
    "pgm": by_opencv(".pgm"),
    "pbm": by_opencv(".pbm"),
    "ppm with comments": b"P6 # a\n# 9999 9999\n53\t37 255\n" + PICTURE.tobytes(),
    "pam": by_opencv(".pam"),
    "pfm": by_opencv(".pfm"),
    "hdr": by_opencv(".hdr"),
    "sun raster": by_opencv(".ras"),
}
FILES |= {
    name: data
    for name, data in {"jp2": by_pil("jpeg2000"), "j2k": by_pil("jpeg2000", no_jp2=True), "gif": by_pil("gif")}.items()
    if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None  # as this OpenCV was built
}


@pytest.mark.parametrize("name", FILES)
def test_the_header_tells_the_size(name):
    assert header.size(FILES[name]) == (53, 37)
    assert read_image(FILES[name]).shape == (37, 53, 3)
    assert read_image(FILES[name], max_pixels=53 * 37).shape == (37, 53, 3)
    with pytest.raises(ImageError, match=r"53 x 37 pixels are more than 1,960; .* raise max_pixels \(--max-pixels"):
        read_image(FILES[name], max_pixels=53 * 37 - 1)


def test_big_tiff_and_avif():
    assert header.size(by_pil("tiff", big_tiff=True)) == (53, 37)
    avif = struct.pack(">I4s4s", 16, b"ftyp", b"avif").ljust(16) + struct.pack(">I4s", 20, b"meta")
    avif += b"ispe" + struct.pack(">III", 0, 10, 20) + b"ispe" + struct.pack(">III", 0, 53, 37)
    assert header.size(avif) == (53, 37)


def test_a_tiff_that_lacks_samples_is_damaged():
    """OpenCV would give pixels that are whatever its memory held."""
    samples = struct.pack("<HHIHH", 277, 3, 1, 3, 0)
    assert FILES["tiff"].count(samples) == 1
    for fewer in (struct.pack("<HHIHH", 277, 3, 1, 1, 0), struct.pack("<HHIHH", 280, 3, 1, 3, 0)):
        with pytest.raises(ImageError, match="header is damaged"):
            read_image(FILES["tiff"].replace(samples, fewer))


@pytest.mark.parametrize("name", FILES)
def test_no_damage_leads_past_the_limit(name):
    """Whatever a damaged header says to OpenCV, it decodes no more than what is allowed."""
    rng, whole = np.random.default_rng(1), FILES[name]
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(min(len(whole), 120), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        try:
            image = read_image(damaged, max_pixels=5000)
        except ImageError:
            continue
        assert image.shape[0] * image.shape[1] <= 5000


@pytest.mark.parametrize("name", FILES)
def test_cut_headers_are_no_size(name):
    for end in range(60):
        header.size(FILES[name][:end])
        with pytest.raises(ImageError):
            read_image(FILES[name][:end])


def png_bomb():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 16, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )


def jpeg_bomb():
    """A JPEG that says 40,000 x 40,000."""
    data, (start, *_) = FILES["jpeg"], [at for kind, at, _ in jpeg._segments(FILES["jpeg"]) if kind == 0xC0]
    return data[: start + 1] + struct.pack(">HH", 40_000, 40_000) + data[start + 5 :]


@pytest.mark.parametrize("bomb", [png_bomb(), jpeg_bomb()], ids=["png", "jpeg"])
def test_bombs_are_refused_before_they_are_decoded(bomb, landmark_model, detector_model, tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(bomb)
    aligner = Aligner(landmark_model(), detector_model())
    tracemalloc.start()
    messages = []
    for read in (read_image, Picture, aligner):
        with pytest.raises(
            ImageError, match=r"bomb: (20000 x 20000|40000 x 40000) pixels are more than 178,956,970"
        ) as e:
            read(path)
        messages.append(str(e.value))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(messages)) == 1 and peak < 10**7


def test_the_limit_is_an_argument_or_of_the_environment(monkeypatch, landmark_model, detector_model):
    data = FILES["jpeg"]
    models = (landmark_model(), detector_model())
    monkeypatch.setenv("FACELM_MAX_PIXELS", "1000")
    for read in (read_image, Picture, Aligner(*models)):
        with pytest.raises(ImageError, match="more than 1,000"):
            read(data)
    assert read_image(data, max_pixels=MAX_PIXELS).shape == (37, 53, 3)
    assert len(Aligner(*models, max_pixels=MAX_PIXELS)(data)) == 1  # as large as the picture
    assert np.shares_memory(read_image(PICTURE), PICTURE)
    for text in ("many", "-1", "0", "1e6", "9" * 5000):
        monkeypatch.setenv("FACELM_MAX_PIXELS", text)
        with pytest.raises(InputError, match="FACELM_MAX_PIXELS is a whole number from 1 to 1073741824"):
            read_image(data)
    for limit in (0, 2**31, 1.5, "10", True):
        with pytest.raises(InputError, match="max_pixels is a whole number"):
            Aligner(*models, max_pixels=limit)


def test_the_command_takes_the_limit(landmark_model, detector_model, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(FILES["png"])
    command = ["align", str(path), "--json-lines", "-", "--model", str(landmark_model()), "--detector"]
    command += [str(detector_model()), "--max-pixels"]
    result = CliRunner().invoke(cli.app, [*command, "1960"])
    assert result.exit_code == 1 and "53 x 37 pixels are more than 1,960" in result.stderr
    result = CliRunner().invoke(cli.app, [*command, "1961"])
    assert result.exit_code == 0 and json.loads(result.stdout)["width"] == 53


def with_scans(count):
    """A progressive JPEG whose last scan stands ``count`` times more."""
    data = FILES["progressive jpeg"]
    last = max(start for marker, start, _ in jpeg._segments(data) if marker == 0xDA) - 4
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


def test_scans_are_bounded():
    usual = sum(marker == 0xDA for marker, _, _ in jpeg._segments(FILES["progressive jpeg"]))
    assert usual < 20
    assert read_image(with_scans(jpeg.MOST_SCANS - usual)).shape == (37, 53, 3)
    for source in (with_scans(jpeg.MOST_SCANS - usual + 1), with_scans(3000)):
        for read in (read_image, Picture):
            with pytest.raises(ImageError, match="more than 100 scans"):
                read(source)
    # What follows the picture, as phones append a film, and what a comment holds are no scans.
    assert read_image(FILES["progressive jpeg"] + b"\xff\xda\0\2" * 200).shape == (37, 53, 3)
    comment = b"\xff\xfe" + (802).to_bytes(2, "big") + b"\xff\xda\0\2" * 200
    assert read_image(b"\xff\xd8" + comment + FILES["progressive jpeg"][2:]).shape == (37, 53, 3)
    # A comment that looks like the end does not hide scans behind it.
    hidden = with_scans(3000)
    second = [start for marker, start, _ in jpeg._segments(hidden) if marker == 0xDA][1] - 4
    with pytest.raises(ImageError, match="more than 100 scans"):
        read_image(hidden[:second] + b"\xff\xfe\0\4\xff\xd9" + hidden[second:])
