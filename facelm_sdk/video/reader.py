"""The frames of a video file, a stream, a camera or a sequence of pictures."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from .._checks import is_number
from .._optional import has_av
from ..errors import ImageError, InputError
from ..files import is_file, is_folder, is_url
from ..images.folder import told_of_none
from ..images.header import SUFFIXES
from ..images.read import read_image
from ..types import ImageArray
from . import opencv, pyav
from .container import is_cut_off

logger = logging.getLogger(__name__)

FEWER = 0.9
"""Part of the frames told of. With less, and a second less, there is a warning: some files tell a guess."""
SEQUENCE_FPS = 25.0
"""Frames a second of pictures, unless told otherwise."""

_NUMBER = re.compile(r"%0?(\d*)d")


class Source(Protocol):
    """What frames come from."""

    fps: float
    count: int | None

    def frames(self) -> Iterator[tuple[float, ImageArray]]:
        """Seconds from the start, and (H, W, 3) uint8 BGR."""


class VideoReader:
    """The frames (H, W, 3) uint8 BGR, upright, of a video file, or of what else ``source`` is: see below.

    A camera by its number ("0"); a URL (``rtsp://``, ``http://``); a folder of pictures, in the order of their names,
    or a pattern of numbered ones (``frames/%05d.png``), ``fps`` frames a second.

    Read by PyAV where it is installed (``facelm-sdk[video]``), else, and cameras always, by OpenCV. A file that is cut
    off, or holds far fewer frames than it tells of, is read as far as it goes, with a warning in the log at its end.
    To be read once. Raises ImageError.
    """

    def __init__(self, source: str | Path, *, fps: float | None = None) -> None:
        if fps is not None and not is_number(fps, 1e-3, 1e4):
            raise InputError(f"fps is frames a second, 0.001 to 10000, not {fps!r}")
        self.name = str(source)
        self.is_camera = self.name.isdecimal()
        self.is_url = is_url(self.name)
        self.path = None if self.is_camera or self.is_url or not is_file(self.name) else Path(self.name)
        """The video's file; None for all others."""
        self._frames = self._open(fps)
        self.fps = self._frames.fps
        self.count = self._frames.count
        """The number of frames as the file tells it, or as its length does, None where it does not."""
        self.ended_early = False
        """Whether the file is cut off, known once its last frame was read."""

    @property
    def is_live(self) -> bool:
        """Whether it goes on until somebody stops it."""
        return self.is_camera or (self.is_url and self.count is None)

    def _open(self, fps: float | None) -> Source:
        if self.is_camera:
            return opencv.OpenCvSource(int(self.name))
        if self.path is not None or self.is_url:
            return pyav.AvSource(self.name, is_url=self.is_url) if has_av() else opencv.OpenCvSource(self.name)
        return _Pictures(self.name, SEQUENCE_FPS if fps is None else fps)

    def __iter__(self) -> Iterator[ImageArray]:
        """The frames."""
        return (frame for _, frame in self.timed())

    def timed(self) -> Iterator[tuple[float, ImageArray]]:
        """Each frame's seconds from the start, as the file has them, and the frame."""
        read = 0
        for timed in self._frames.frames():
            read += 1
            yield timed
        if self.path is not None:
            self._check_end(self.path, read)

    def _check_end(self, path: Path, read: int) -> None:
        if self.count is None or read < self.count:
            with suppress(OSError):  # it is gone meanwhile
                self.ended_early = is_cut_off(path)
        told = "" if self.count is None else f" of {self.count}"
        if self.ended_early:
            logger.warning("%s is cut off: %d%s frames could be read", self.name, read, told)
        elif self.count is not None and read < min(FEWER * self.count, self.count - self.fps):
            logger.warning("%s holds fewer frames than it tells of: %d%s could be read", self.name, read, told)


class _Pictures:
    """The frames of picture files."""

    def __init__(self, source: str, fps: float) -> None:
        self.fps = fps
        path = Path(source)
        if is_folder(path):
            self._paths = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES)
            if not self._paths:
                raise ImageError(told_of_none([source]))
        else:
            self._paths = _numbered(path)
            if not self._paths:
                raise ImageError(
                    f"no video {source}; accepted are video files, URLs (rtsp://, http://), folders of pictures, "
                    f"patterns of numbered ones (frames/%05d.png), and a camera's number, such as 0"
                )
        self.count: int | None = len(self._paths)

    def frames(self) -> Iterator[tuple[float, ImageArray]]:
        for index, path in enumerate(self._paths):
            yield index / self.fps, read_image(path)


def _numbered(pattern: Path) -> list[Path]:
    """The files whose names a pattern with one %d has made, by their numbers."""
    number = _NUMBER.search(pattern.name)
    if number is None or not is_folder(pattern.parent):
        return []
    before, after = pattern.name[: number.start()], pattern.name[number.end() :]
    digits = rf"\d{{{int(number[1])},}}" if number[1] else r"\d+"
    name = re.compile(rf"{re.escape(before)}({digits}){re.escape(after)}", re.ASCII)
    found = ((name.fullmatch(path.name), path) for path in pattern.parent.iterdir())
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def count_frames(path: Path) -> int:
    """Return how many frames of a video file can be read; 0 for what is none."""
    return pyav.count_frames(path) if has_av() else opencv.count_frames(path)
