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

CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


class VideoWriter:
    """A video file written frame by frame beside its place, where it is put at the end unless an error came up.

    The suffix chooses the codec: .mp4, .mov and .mkv (MPEG-4), .avi (Motion JPEG). An interrupt ends the video of a
    camera (``keep_interrupted``) and discards another. Raises OutputError.
    """

    def __init__(self, path: Path, fps: float, *, keep_interrupted: bool = False) -> None:
        if path.suffix.lower() not in CODECS:
            raise OutputError(f"{path} is not a video this can write; accepted are {', '.join(CODECS)}")
        check_place(path)
        if is_stream(path):
            raise OutputError(f"{path} is a device or a pipe; a video is written into a file")
        self._target = resolve_target(path)
        self._path, self._fps, self._keep_interrupted = path, fps, keep_interrupted
        self._draft = draft_beside(self._target).with_suffix(f".tmp{path.suffix}")
        self._writer: Any = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frame: ImageArray) -> None:
        """Add a frame (H, W, 3) uint8 BGR, of the size of the first."""
        if self._writer is None:
            cv2 = load_cv2()
            self._target.parent.mkdir(parents=True, exist_ok=True)
            codec = cv2.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._draft), codec, self._fps, frame.shape[1::-1])
            if not self._writer.isOpened():
                raise OutputError(f"{self._path} cannot be written: this OpenCV has no encoder for it; try .avi")
        self._writer.write(frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        whole = error is None or (self._keep_interrupted and isinstance(error, KeyboardInterrupt))
        try:
            if whole and self._writer is not None:
                place(self._draft, self._target)
        except OSError as problem:
            raise OutputError(f"{self._path} cannot be written: {problem.strerror or problem}") from problem
        finally:
            with suppress(OSError):
                self._draft.unlink(missing_ok=True)
