"""``facelm track``: the faces of a video or a camera, frame by frame."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from .. import zoo
from ..errors import ImageError, InputError
from ..files import LinesFile, check_outputs
from ..images.draw import draw
from ..types import Face, ImageArray
from ..video.one_euro import Smoothing
from ..video.reader import VideoReader
from ..video.tracker import Tracker
from ..video.writer import VideoWriter
from .options import DetSizeText, MinPresence, VariantText, det_size_of, stderr


def track(
    source: Annotated[str, typer.Argument(metavar="VIDEO|CAMERA", help="A video file, or a camera's number.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The video with the faces drawn (.mp4, .avi).")
    ] = None,
    json_lines: Annotated[
        str | None, typer.Option(metavar="FILE", help="One JSON line a frame into FILE (- is stdout).")
    ] = None,
    model: Annotated[str, typer.Option(help="Landmark model: a name of `facelm models` or a path.")] = zoo.LANDMARKS,
    detector: Annotated[str, typer.Option(help="Detector: a name or a path.")] = zoo.DETECTOR,
    variant: VariantText = "auto",
    det_size: DetSizeText = "auto",
    max_faces: Annotated[int | None, typer.Option(help="Follow the best faces only.")] = None,
    min_presence: MinPresence = None,
    redetect_every: Annotated[int, typer.Option(help="Frames after which more faces are looked for.")] = 10,
    smooth: Annotated[bool, typer.Option("--smooth/--no-smooth", help="Steady the points (One-Euro filter).")] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:<index>.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads of a run. (default: 1 for a small network)")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no last line.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Where the time went, on stderr at the end.")] = False,
) -> None:
    """Follow the faces of a video, or of a camera until Ctrl-C.

    Of a video file that is cut off, what can be read is followed, with a warning and exit code 1.
    """
    if output is None and json_lines is None:
        raise InputError("nothing to do: add -o FILE for a video, or --json-lines FILE")
    lines_path = None if json_lines is None or json_lines == "-" else Path(json_lines)
    outputs = {"-o": output, "--json-lines": lines_path}
    check_outputs(
        {option: path for option, path in outputs.items() if path is not None},
        [Path(source), Path(model), Path(detector)],
    )
    video = VideoReader(source)
    smoothing: bool | Smoothing = Smoothing(fps=video.fps) if smooth else False
    options: dict[str, Any] = {
        "landmarks": model,
        "detector": detector,
        "variant": variant,
        "det_size": det_size_of(det_size),
        "device": device,
        "threads": threads,
        "min_presence": min_presence,
    }
    tracker = Tracker(
        max_faces=max_faces, redetect_every=redetect_every, smoothing=smoothing, profile=profile, **options
    )
    numbers: set[int | None] = set()
    spent, count = 0.0, 0
    try:
        with ExitStack() as stack:
            lines = None if lines_path is None else stack.enter_context(LinesFile(lines_path))
            writer = output and stack.enter_context(VideoWriter(output, video.fps, keep_interrupted=video.is_camera))
            for index, frame in enumerate(_shown(stack, video, quiet=quiet)):
                started = time.perf_counter()
                faces = tracker(frame)
                spent, count = spent + time.perf_counter() - started, index + 1
                numbers.update(face.track_id for face in faces)
                if writer:
                    writer.write(draw(frame, faces))
                if json_lines == "-":
                    typer.echo(_line(index, video.fps, faces))
                elif lines is not None:
                    lines.write(f"{_line(index, video.fps, faces)}\n".encode())
            if not count:
                raise ImageError(f"{source} has no frame that OpenCV can read")
    except KeyboardInterrupt:
        if not video.is_camera or not count:
            raise
    if not quiet:
        stderr.print(f"{count} frames, {len(numbers)} faces, {spent / count * 1e3:.1f} ms a frame")
    if tracker.aligner.profile is not None:
        stderr.print(str(tracker.aligner.profile), markup=False)
    if video.ended_early:  # what was read of it is written, and the log tells the frames
        raise typer.Exit(1)


def _shown(stack: ExitStack, video: VideoReader, *, quiet: bool) -> Iterator[ImageArray]:
    """The frames, with a bar while there is a terminal to show it."""
    # A bar on the terminal must not take the lines that go to a pipe.
    bar = Progress(console=stderr, transient=True, disable=quiet, redirect_stdout=sys.stdout.isatty())
    stack.enter_context(bar)
    yield from bar.track(video, total=video.count, description="tracking")


def _line(index: int, fps: float, faces: list[Face]) -> str:
    record = {"frame": index, "seconds": round(index / fps, 3), "faces": [face.to_dict() for face in faces]}
    return json.dumps(record, ensure_ascii=False)
