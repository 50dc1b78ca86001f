"""Videos by PyAV: the file's own timestamps, rotation and audio, and H.264 that browsers play."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .._optional import load_av
from ..errors import ImageError, OutputError
from ..types import ImageArray

logger = logging.getLogger(__name__)

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
TIMEOUT = 10.0
"""Seconds that a URL may take to answer."""
TICK = Fraction(1, 90_000)
"""Seconds, of which timestamps are a whole number."""
BROWSERS_AUDIO = ("aac", "mp3", "opus", "flac")
"""What browsers play in an .mp4."""
BT709, LIMITED = 1, 1
"""Colour space and range, as ITU-T H.273 and FFmpeg number them; what players take HD video for."""


class AvSource:
    """The frames of a video file or a URL. Raises ImageError."""

    def __init__(self, source: str, *, is_url: bool) -> None:
        av = load_av()
        self._name, self._error, self._damage = source, av.FFmpegError, av.error.InvalidDataError
        # Without a list, a file may be a playlist of other files and of addresses.
        options = {"rtsp_transport": "tcp"} if is_url else {"protocol_whitelist": "file"}
        place = source if is_url else str(Path(source).absolute())
        try:
            self._container: Any = av.open(place, options=options, timeout=TIMEOUT if is_url else None)
            self._stream = self._container.streams.video[0]
        except (av.FFmpegError, OSError, IndexError, ValueError) as error:
            reason = "it has no video" if isinstance(error, IndexError) else getattr(error, "strerror", None) or error
            raise ImageError(f"cannot open {source}: not a video FFmpeg can read ({reason})") from error
        self._stream.thread_type = "AUTO"
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 30.0)
        self.count = self._stream.frames or None
        if self.count is None and self._container.duration:
            self.count = round(self._container.duration / av.time_base * self.fps) or None
        self._start = (self._container.start_time or 0) / av.time_base

    def frames(self) -> Iterator[tuple[float, ImageArray]]:
        """Seconds from the start, by the file's timestamps, and frame, upright."""
        for index, frame in enumerate(self.decoded()):
            seconds = index / self.fps if frame.time is None else max(0.0, frame.time - self._start)
            try:
                image = _upright(frame)
            except (self._error, OSError, ValueError):  # of a size or a form that is damaged
                continue
            yield seconds, image

    def decoded(self) -> Iterator[Any]:
        """The frames as PyAV has them."""
        packets = self._container.demux(self._stream)
        try:
            while True:
                try:
                    if (packet := next(packets, None)) is None:
                        return
                    yield from packet.decode()
                except self._damage:
                    continue  # those after it may be whole
                except (self._error, OSError) as error:
                    logger.warning("%s ends: %s", self._name, getattr(error, "strerror", None) or error)
                    return
        finally:
            self._container.close()


def _upright(frame: Any) -> ImageArray:
    image = frame.to_ndarray(format="bgr24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else np.asarray(image, np.uint8)


class AvEncoder:
    """A video file that is written frame by frame, as H.264 in 4:2:0, at the times that are given.

    A frame of an odd side has its last row or column twice, which the format asks for. ``audio`` is the file whose
    audio is taken over: as it is, or as AAC where the format cannot hold it or, as .mp4, browsers would not play it.
    """

    def __init__(self, path: Path, suffix: str, fps: float, size: tuple[int, int], audio: Path | None) -> None:
        av = load_av()
        self._av, self._last, self._rate = av, -1, fps
        options = {"movflags": "faststart"} if suffix != ".mkv" else {}
        self._container: Any = av.open(str(path), "w", format=FORMATS[suffix], options=options)
        self._stream = self._container.add_stream(_codec(av), rate=Fraction(fps).limit_denominator(65_535))
        self._stream.width, self._stream.height = (side + side % 2 for side in size)
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = TICK
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
        if context.name == "libx264":
            context.options = {"crf": "20", "preset": "veryfast"}
        self._audio = None if audio is None else _audio_of(av, audio, self._container)

    def write(self, frame: ImageArray, seconds: float) -> None:
        """Add a frame (H, W, 3) uint8 BGR, shown from ``seconds`` on. Raises what FFmpeg does."""
        if frame.shape[0] % 2 or frame.shape[1] % 2:
            frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="bgr24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED)
        self._last = max(self._last + 1, round(seconds / TICK))
        picture.pts, picture.time_base = self._last, TICK
        self._container.mux(self._stream.encode(picture))
        if self._audio is not None:
            self._audio.write_until(seconds)

    def close(self, *, whole: bool) -> None:
        """End the file; its audio ends with the video unless that is ``whole``. Raises what FFmpeg does."""
        try:
            self._container.mux(self._stream.encode(None))
            if self._audio is not None:
                self._audio.write_until(float("inf") if whole else float(self._last * TICK) + 1 / self._rate)
                self._audio.close()
        finally:
            self._container.close()


class _Audio:
    """The packets of a file's audio, written into another file as far as its video has come."""

    def __init__(self, source: Any, stream: Any, target: Any, damage: type[Exception]) -> None:
        self._source, self._target, self._damage = source, target, damage
        self._start = source.start_time or 0
        self._packets = source.demux(stream)
        self._held: Any = None
        self._encoded = None
        kept = stream.codec_context.codec.canonical_name
        if kept in target.supported_codecs and (target.format.name != "mp4" or kept in BROWSERS_AUDIO):
            self._stream = target.add_stream_from_template(stream)
        else:
            self._stream = self._encoded = target.add_stream("aac", rate=stream.codec_context.sample_rate)
            # Some files tell the number of channels alone, with which the encoder does not know what to do.
            layout = {1: "mono", 2: "stereo"}.get(stream.codec_context.layout.nb_channels)
            if layout is not None:
                stream.codec_context.layout = layout
            self._encoded.codec_context.layout = stream.codec_context.layout

    def write_until(self, seconds: float) -> None:
        while True:
            packet, self._held = self._held or self._next(), None
            if packet is None:
                return
            if packet.dts is None and self._encoded is None:
                continue  # the one at the end, which holds nothing
            if packet.dts is not None:
                shift = round(Fraction(self._start, 1_000_000) / packet.time_base)
                if float((packet.dts - shift) * packet.time_base) > seconds:
                    self._held = packet
                    return
            if self._encoded is not None:
                for frame in self._decoded(packet):
                    frame.pts = None if frame.pts is None else frame.pts - round(self._start / 1e6 / frame.time_base)
                    self._target.mux(self._encoded.encode(frame))
                continue
            packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
            packet.dts -= shift
            packet.stream = self._stream
            self._target.mux(packet)

    def _next(self) -> Any:
        """The next packet; None at the end, which is where a damaged file cannot be read on."""
        try:
            return next(self._packets, None)
        except self._damage:
            return None

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            return list(packet.decode())
        except self._damage:
            return []

    def close(self) -> None:
        if self._encoded is not None:
            self._target.mux(self._encoded.encode(None))
        self._source.close()


def _audio_of(av: Any, path: Path, target: Any) -> _Audio | None:
    """The audio of a file; None where it has none, or none that can be read."""
    try:
        source = av.open(str(path.absolute()), options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError):
        return None
    if not source.streams.audio:
        source.close()
        return None
    return _Audio(source, source.streams.audio[0], target, av.FFmpegError)


def _codec(av: Any) -> str:
    """The first of the encoders of H.264 that this FFmpeg has. Raises OutputError."""
    for name in ("libx264", "libopenh264", "h264_videotoolbox"):
        if name in av.codecs_available:
            return name
    raise OutputError("this PyAV has no encoder of H.264; type: pip install --force-reinstall av")


def count_frames(path: Path) -> int:
    """Return how many frames of a video file can be decoded; 0 for what is none."""
    try:
        source = AvSource(str(path), is_url=False)
    except ImageError:
        return 0
    return sum(1 for _ in source.decoded())
