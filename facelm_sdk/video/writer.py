"""A video file that is whole or not there."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from .._optional import has_av, load_av
from ..errors import OutputError
from ..files import check_place, draft_beside, is_stream, place, resolve_target
from ..types import ImageArray
from .opencv import CODECS, OpenCvEncoder
from .pyav import FORMATS, AvEncoder
from .reader import count_frames

logger = logging.getLogger(__name__)


INSTALL = 'type: pip install "facelm-sdk[video]"'


class VideoWriter:
    """A video file written frame by frame beside its place, where it is put at the end unless an error came up.

    Before that it is opened again and its frames are counted, so that a full disk is told. The suffix chooses the
    codec: .mp4, .mov and .mkv are H.264 by PyAV (``facelm-sdk[video]``), which browsers play, or MPEG-4 by OpenCV; .avi
    is Motion JPEG. ``audio``: the file whose audio is kept, by PyAV. With OpenCV, and as .avi, frames come ``fps`` a
    second and there is no audio.

    An interrupt ends the video of a camera (``keep_interrupted``) and discards another. Raises OutputError.
    """

    def __init__(
        self, path: str | os.PathLike[str], fps: float, *, audio: Path | None = None, keep_interrupted: bool = False
    ) -> None:
        path = Path(path)
        self._suffix = path.suffix.lower()
        if self._suffix not in CODECS:
            raise OutputError(f"{path} is not a video this can write; accepted are {', '.join(CODECS)}")
        check_place(path)
        if is_stream(path):
            raise OutputError(f"{path} is a device or a pipe; a video is written into a file")
        self._path, self._fps, self._audio, self._keep_interrupted = path, fps, audio, keep_interrupted
        self._target = resolve_target(path)
        self._draft = draft_beside(self._target).with_suffix(f".tmp{self._suffix}")
        self._encoder: AvEncoder | OpenCvEncoder | None = None
        self._size = (0, 0)
        self._count = 0

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frame: ImageArray, seconds: float | None = None) -> None:
        """Add a frame (H, W, 3) uint8 BGR, as large as the first, shown from ``seconds`` on (default: by ``fps``)."""
        height, width = frame.shape[:2]
        if self._encoder is None:
            self._size = (width, height)
            self._encoder = self._open()
        elif (width, height) != self._size:
            was = "x".join(map(str, self._size))
            raise OutputError(f"{self._path} cannot be written: its frames are {was}, and then {width}x{height}")
        try:
            self._encoder.write(frame, self._count / self._fps if seconds is None else seconds)
        except _errors() as error:
            raise self._problem(error) from error
        self._count += 1

    def _open(self) -> AvEncoder | OpenCvEncoder:
        by_av = self._suffix in FORMATS and has_av()
        if self._suffix in FORMATS and not by_av:
            logger.warning("%s is MPEG-4 without audio, which browsers do not play; for H.264, %s", self._path, INSTALL)
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._draft.touch()  # so that a folder that cannot be written is no encoder that is missing
            if by_av:
                return AvEncoder(self._draft, self._suffix, self._fps, self._size, self._audio)
            return OpenCvEncoder(self._draft, self._suffix, self._fps, self._size)
        except _errors() as error:
            with suppress(OSError):
                self._draft.unlink(missing_ok=True)
            raise self._problem(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._encoder is None:
            return
        interrupted = self._keep_interrupted and isinstance(error, KeyboardInterrupt)
        try:
            if error is None or interrupted:
                self._encoder.close(whole=error is None)
                self._check_frames()
                place(self._draft, self._target)
            else:
                with suppress(*_errors()):
                    self._encoder.close(whole=False)
        except _errors() as problem:
            raise self._problem(problem) from problem
        finally:
            with suppress(OSError):
                self._draft.unlink(missing_ok=True)

    def _problem(self, error: Exception) -> OutputError:
        text = getattr(error, "strerror", None) or str(error)
        return OutputError(f"{self._path} cannot be written: {text}")

    def _check_frames(self) -> None:
        found = count_frames(self._draft)
        if found < self._count:
            raise OutputError(f"{found} of {self._count} frames are in the file; the disk may be full")


def _errors() -> tuple[type[Exception], ...]:
    """What writing may raise: FFmpeg's errors are not all of them OSErrors."""
    return (OSError, ValueError, load_av().FFmpegError) if has_av() else (OSError,)
