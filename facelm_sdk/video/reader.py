"""The frames of a video file or a camera."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from .._optional import load_cv2
from ..errors import ImageError
from ..files import is_file
from ..types import ImageArray
from .container import is_cut_off

logger = logging.getLogger(__name__)

FEWER = 0.9
"""Part of the frames told of. With less, and a second less, there is a warning: some files tell a guess."""


class VideoReader:
    """The frames (H, W, 3) uint8 BGR of a video file, or of a camera by its number ("0"). Raises ImageError.

    A file that is cut off, or holds far fewer frames than it tells of, is read as far as it goes, with a warning in the
    log at its end.
    """

    def __init__(self, source: str) -> None:
        cv2 = load_cv2()
        self.is_camera = source.isdecimal()
        if not self.is_camera and not is_file(source):
            raise ImageError(f"no video {source}; accepted are video files and a camera's number, such as 0")
        self._source = source
        self._capture: Any = cv2.VideoCapture(int(source) if self.is_camera else source)
        if not self._capture.isOpened():
            raise ImageError(f"cannot open {'camera ' if self.is_camera else ''}{source}: not a video OpenCV can read")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or 30.0
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 and not self.is_camera else None
        """The number of frames as the file tells it, None where it does not."""
        self.ended_early = False
        """Whether the file is cut off, known once its last frame was read."""

    def __iter__(self) -> Iterator[ImageArray]:
        read = 0
        try:
            while True:
                more, frame = self._capture.read()
                if not more:
                    break
                read += 1
                yield frame
        finally:
            self._capture.release()
        if not self.is_camera:
            self._check_end(read)

    def _check_end(self, read: int) -> None:
        if self.count is None or read < self.count:
            with suppress(OSError):  # it is gone meanwhile
                self.ended_early = is_cut_off(Path(self._source))
        told = "" if self.count is None else f" of {self.count}"
        if self.ended_early:
            logger.warning("%s is cut off: %d%s frames could be read", self._source, read, told)
        elif self.count is not None and read < min(FEWER * self.count, self.count - self.fps):
            logger.warning("%s holds fewer frames than it tells of: %d%s could be read", self._source, read, told)


def count_frames(path: Path) -> int:
    """Return how many frames of a video file can be read; 0 for what is none."""
    capture = load_cv2().VideoCapture(str(path))
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return count
