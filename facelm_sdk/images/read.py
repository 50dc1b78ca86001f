"""Reading pictures: path, bytes, PIL image or array -> (H, W, 3) uint8 BGR, upright, or an ImageError that says why."""

from __future__ import annotations

import logging
import os
import sys
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._checks import is_whole
from .._optional import load_cv2, load_pillow, load_pillow_heif
from ..errors import ImageError, InputError, MissingDependencyError
from ..files import is_url, read_bytes
from ..types import ImageArray
from . import header, jpeg

logger = logging.getLogger(__name__)

MAX_PIXELS = 178_956_970
"""The most pixels of a picture file unless told otherwise: the limit at which Pillow, too, raises an error."""
OPENCV_MAX_PIXELS = 2**30

_TURNED = b"irot", b"imir"
"""Properties of an AVIF file that say how a viewer turns it."""

_VARIABLE = "FACELM_MAX_PIXELS"

_ACCEPTED = (
    "accepted are arrays (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, of uint16, or of float from 0 to 1; "
    "paths and bytes of picture files; PIL images"
)


def read_image(source: Any, color: Literal["bgr", "rgb"] = "bgr", *, max_pixels: int | None = None) -> ImageArray:
    """A picture as contiguous (H, W, 3) uint8 BGR.

    ``source`` is a path, the bytes of a picture file, a PIL image, or an array (anything with ``__array__``).
    EXIF orientation is applied to files, bytes and PIL images; of HEIC and AVIF, what their container says, for which
    they need pillow-heif and Pillow 11.3: ``pip install "facelm-sdk[heif]"``. ``color`` is the channel order of arrays
    with 3 or 4 channels. Alpha is dropped; uint16 is divided by 257 and float (0 to 1) multiplied by 255. An array that
    needs no change is returned as it is, not copied.

    A file, or its bytes, of more than ``max_pixels`` is refused before it is decoded, as a few kilobytes can take
    gigabytes: by default ``FACELM_MAX_PIXELS`` of the environment, else 178,956,970, Pillow's limit.

    Raises ImageError for everything else, and MissingDependencyError without OpenCV.
    """
    if (file := load_file(source, color, max_pixels)) is not None:
        return decode(*file)
    if _is_pil(source):
        return _from_array(_pil_array(source), rgb=True)
    if hasattr(source, "__array__"):
        return _from_array(np.asarray(source), rgb=color == "rgb")
    raise ImageError(f"a {type(source).__name__} is not a picture; {_ACCEPTED}")


def load_file(
    source: Any, color: Literal["bgr", "rgb"] = "bgr", max_pixels: int | None = None
) -> tuple[bytes, str] | None:
    """The bytes of a path, or those given, and what to call them in an error; None for every other source.

    Raises ImageError where they are truncated, or more than ``max_pixels`` or more work than a picture should be.
    """
    if not isinstance(color, str) or color not in ("bgr", "rgb"):
        raise InputError(f"color is 'bgr' or 'rgb', not {color!r}")
    max_pixels = checked_max_pixels(max_pixels)
    if isinstance(source, str) and is_url(source):
        raise ImageError(f"{source} is an address; pictures are read from files and bytes: download it first")
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            data, what = read_bytes(path), str(path)
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data, what = bytes(source), f"{len(source)} bytes"
    else:
        return None
    check_file(data, what, max_pixels)
    return data, what


def checked_max_pixels(max_pixels: Any) -> int:
    """Return the limit that holds: the one given, else the environment's, else MAX_PIXELS. Raises InputError."""
    name = "max_pixels"
    if max_pixels is None and (text := os.environ.get(_VARIABLE)):
        name, max_pixels = _VARIABLE, int(text) if text.isdecimal() and len(text) < 20 else text
    if max_pixels is None:
        return MAX_PIXELS
    if not is_whole(max_pixels, 1, OPENCV_MAX_PIXELS):
        raise InputError(f"{name} is a whole number from 1 to {OPENCV_MAX_PIXELS} pixels, not {max_pixels!r}")
    return int(max_pixels)


def decode(data: bytes, what: str, reduction: int = 1, *, upright: bool = True) -> ImageArray:
    """The picture of a checked file's bytes (H, W, 3) uint8 BGR; at 1/``reduction`` (1, 2, 4 or 8) of its size.

    ``upright``: turned by its EXIF orientation, as HEIC and AVIF always are. Raises ImageError.
    """
    if header.is_heif(data):
        return _decode_heif(data, what)
    return _decode(data, what, reduction, upright=upright)


def _decode(data: bytes, what: str, reduction: int = 1, *, upright: bool = True) -> ImageArray:
    cv2 = load_cv2()
    flags = cv2.IMREAD_COLOR if reduction == 1 else getattr(cv2, f"IMREAD_REDUCED_COLOR_{reduction}")
    flags |= cv2.IMREAD_ANYDEPTH | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"{what}: OpenCV cannot decode it ({error.err or error})") from error
    if image is None:
        raise ImageError(f"{what}: not a picture OpenCV can decode, or above its limit of pixels")
    return _from_array(image, rgb=False)


def _decode_heif(data: bytes, what: str) -> ImageArray:
    """HEIC by pillow-heif; AVIF by Pillow, which turns it upright, or by an OpenCV that can, which does not."""
    is_heic = header.is_heic(data)
    try:
        if is_heic:
            image = load_pillow_heif().open_heif(BytesIO(data)).to_pillow()
        else:
            image = load_pillow().open(BytesIO(data), formats=["AVIF"])
        return _from_array(_pil_array(image), rgb=True)
    except MissingDependencyError as missing:
        if is_heic:
            raise ImageError(f"{what}: {missing}") from missing
        try:
            image = _decode(data, what)
        except ImageError as error:
            raise ImageError(f"{what}: {missing}") from error
        if any(property in data for property in _TURNED):
            logger.warning("%s is not turned upright: %s", what, missing)
        return image
    except Exception as error:  # the plug-ins raise of every kind for damaged files
        raise ImageError(f"{what}: Pillow cannot decode it ({error})") from error


def check_file(data: bytes, what: str, max_pixels: int | None = None) -> None:
    """Raise ImageError for a picture file's bytes that are truncated, or of too many pixels or too much work."""
    max_pixels = checked_max_pixels(max_pixels)
    if not data:
        raise ImageError(f"{what}: the file is empty")
    # Decoders fill what is missing with grey and say nothing.
    if jpeg.is_jpeg(data) and not jpeg.is_whole(data):
        raise ImageError(f"{what}: the JPEG is truncated")
    if data.startswith(b"\x89PNG\r\n\x1a\n") and not _png_is_whole(data):
        raise ImageError(f"{what}: the PNG is truncated")
    if (size := header.size(data)) is None:
        raise ImageError(f"{what}: not a picture, or its header is damaged; accepted are {header.FORMATS}")
    if size[0] * size[1] > max_pixels:
        raise ImageError(
            f"{what}: {size[0]} x {size[1]} pixels are more than {max_pixels:,}; if you trust the file, raise "
            f"max_pixels (--max-pixels, {_VARIABLE})"
        )
    if jpeg.is_jpeg(data) and jpeg.has_too_many_scans(data):
        raise ImageError(f"{what}: the JPEG has more than {jpeg.MOST_SCANS} scans, each as much work as a picture")


def _png_is_whole(data: bytes) -> bool:
    """Whether the chunks run up to IEND."""
    position = 8
    while position + 12 <= len(data):
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return False


def _is_pil(source: Any) -> bool:
    pil = sys.modules.get("PIL.Image")  # an object of PIL's exists only where PIL is loaded
    return pil is not None and isinstance(source, pil.Image)


def _pil_array(source: Any) -> NDArray[Any]:
    from PIL import ImageOps

    try:
        image = ImageOps.exif_transpose(source)
        if image.mode == "I":  # how PIL holds some 16-bit files
            values = np.asarray(image)
            return values.astype(np.uint16) if values.min() >= 0 and values.max() <= 65535 else values
        if image.mode == "F" or image.mode.startswith("I;16"):
            return np.asarray(image)
        return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"the PIL image cannot be read: {error}") from error


def _from_array(array: NDArray[Any], *, rgb: bool) -> ImageArray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"a picture cannot have shape {array.shape}; {_ACCEPTED}")
    if array.size == 0:
        raise ImageError(f"the picture is empty (shape {array.shape})")
    image = _to_uint8(array)
    if image.ndim == 2 or image.shape[2] == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    image = image[..., 2::-1] if rgb else image[..., :3]
    return np.ascontiguousarray(image)


def _to_uint8(array: NDArray[Any]) -> ImageArray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        # Within 16 bits, where what is above rounds to 255 as well: wider numbers take twice the picture's memory.
        values = np.minimum(array, 65535 - 128)
        values += 128
        values //= 257
        return np.asarray(values, np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"a picture cannot have dtype {array.dtype}; {_ACCEPTED}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise ImageError(f"a float picture has values from 0 to 1, this one from {low:g} to {high:g}; {_ACCEPTED}")
    return np.asarray(np.rint(array * 255), np.uint8)
