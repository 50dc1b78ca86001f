"""Videos and cameras by OpenCV, at a constant rate and without audio: what is there without PyAV."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._optional import load_cv2
from ..errors import ImageError, OutputError
from ..types import ImageArray

CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


class OpenCvSource:
    """The frames of a video file, a URL, or a camera by its number. Raises ImageError."""

    def __init__(self, source: str | int) -> None:
        cv2 = load_cv2()
        self._is_camera = isinstance(source, int)
        with silent(cv2):
            self._capture: Any = cv2.VideoCapture(source)
        if not self._capture.isOpened():
            raise ImageError(
                _no_camera(int(source)) if self._is_camera else f"cannot open {source}: not a video OpenCV can read"
            )
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or 30.0
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 and not self._is_camera else None

    def frames(self) -> Iterator[tuple[float, ImageArray]]:
        """Seconds from the start and frame; of a camera, the seconds that have passed."""
        started, index = time.perf_counter(), 0
        try:
            while True:
                more, frame = self._capture.read()
                if not more:
                    return
                yield (time.perf_counter() - started if self._is_camera else index / self.fps), frame
                index += 1
        finally:
            self._capture.release()


class OpenCvEncoder:
    """A video file that is written frame by frame: MPEG-4 or, as .avi, Motion JPEG."""

    def __init__(self, path: Path, suffix: str, fps: float, size: tuple[int, int]) -> None:
        cv2 = load_cv2()
        with silent(cv2):
            self._writer: Any = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*CODECS[suffix]), fps, size)
        if not self._writer.isOpened():
            raise OutputError(
                f"this OpenCV has no encoder for it, or not for {fps:g} frames a second of {size[0]}x{size[1]}; try "
                f'.avi, or type: pip install "facelm-sdk[video]"'
            )

    def write(self, frame: ImageArray, seconds: float) -> None:
        """Add the next frame."""
        self._writer.write(frame)

    def close(self, *, whole: bool) -> None:
        """End the file."""
        self._writer.release()


def count_frames(path: Path) -> int:
    """Return how many frames of a video file can be read; 0 for what is none."""
    cv2 = load_cv2()
    with silent(cv2):
        capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return count


@contextmanager
def silent(cv2: Any) -> Iterator[None]:
    """Keep what OpenCV writes to stderr of a video that cannot be opened for the error that says it."""
    log = cv2.utils.logging
    before = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(before)


def _no_camera(number: int) -> str:
    advice = "it is in use, or you may not read it"
    if sys.platform == "linux":
        found = sorted(int(path.name[5:]) for path in Path("/dev").glob("video*") if path.name[5:].isdecimal())
        if number not in found:
            advice = f"there is {'none' if not found else 'only ' + ', '.join(map(str, found))}"
    return f"cannot open camera {number}: {advice}"
