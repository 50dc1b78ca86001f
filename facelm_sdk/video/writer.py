"""A video file that is whole or not there."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from .._optional import load_cv2
from ..errors import OutputError
from ..files import check_place, draft_beside, is_stream, place, resolve_target
from ..types import ImageArray
from .reader import count_frames

CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


class VideoWriter:
    """A video file written frame by frame beside its place, where it is put at the end unless an error came up.

    Before that it is opened again and its frames are counted: OpenCV does not tell of a full disk. The suffix chooses
    the codec: .mp4, .mov and .mkv (MPEG-4), .avi (Motion JPEG). An interrupt ends the video of a camera
    (``keep_interrupted``) and discards another. Raises OutputError.
    """

    def __init__(self, path: Path, fps: float, *, keep_interrupted: bool = False) -> None:
        if path.suffix.lower() not in CODECS:
            raise OutputError(f"{path} is not a video this can write; accepted are {', '.join(CODECS)}")
        if is_stream(path):
            raise OutputError(f"{path} is a device or a pipe, into which no video can be written")
        check_place(path)
        self._path, self._fps, self._keep_interrupted = path, fps, keep_interrupted
        self._target = resolve_target(path)
        self._draft = draft_beside(self._target).with_suffix(path.suffix)
        self._writer: Any = None
        self._size = (0, 0)
        self._count = 0

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frame: ImageArray) -> None:
        """Add a frame (H, W, 3) uint8 BGR, of the size of the first."""
        height, width = frame.shape[:2]
        if self._writer is None:
            self._open(width, height)
        elif (width, height) != self._size:
            was = "x".join(map(str, self._size))
            raise OutputError(f"{self._path} cannot be written: its frames are {was}, and then {width}x{height}")
        self._writer.write(frame)
        self._count += 1

    def _open(self, width: int, height: int) -> None:
        cv2 = load_cv2()
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error.strerror or error}") from error
        codec = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
        self._size = (width, height)
        self._writer = cv2.VideoWriter(str(self._draft), codec, self._fps, self._size)
        if not self._writer.isOpened():
            raise OutputError(
                f"{self._path} cannot be written: this OpenCV has no encoder for it, or not for {self._fps:g} frames a "
                f"second of {width}x{height}; try .avi"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._writer.release()
        try:
            if error is None or (self._keep_interrupted and isinstance(error, KeyboardInterrupt)):
                self._check_frames()
                place(self._draft, self._target)
        except OutputError:
            raise
        except OSError as problem:
            raise OutputError(f"{self._path} cannot be written: {problem.strerror or problem}") from problem
        finally:
            with suppress(OSError):
                self._draft.unlink(missing_ok=True)

    def _check_frames(self) -> None:
        found = count_frames(self._draft)
        if found < self._count:
            raise OutputError(
                f"{self._path} cannot be written: {found} of {self._count} frames are in the file; the disk may be full"
            )
