"""The frames of a video file or a camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._optional import load_cv2
from ..errors import ImageError
from ..types import ImageArray


class VideoReader:
    """The frames (H, W, 3) uint8 BGR of a video file, or of a camera by its number ("0"). Raises ImageError."""

    def __init__(self, source: str) -> None:
        cv2 = load_cv2()
        self.is_camera = source.isdecimal()
        if not self.is_camera and not Path(source).is_file():
            raise ImageError(f"no video {source}; accepted are video files and a camera's number, such as 0")
        self._capture: Any = cv2.VideoCapture(int(source) if self.is_camera else source)
        if not self._capture.isOpened():
            raise ImageError(f"cannot open {'camera ' if self.is_camera else ''}{source}: not a video OpenCV can read")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or 30.0
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 and not self.is_camera else None
        """The number of frames as the file tells it, None where it does not."""

    def __iter__(self) -> Iterator[ImageArray]:
        try:
            while True:
                more, frame = self._capture.read()
                if not more:
                    return
                yield frame
        finally:
            self._capture.release()
