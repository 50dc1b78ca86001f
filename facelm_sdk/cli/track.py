"""``facelm track``: the faces of a video, a camera or numbered pictures, frame by frame."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

from .. import zoo
from ..errors import ImageError, InputError
from ..files import LinesFile, check_outputs
from ..types import Face, ImageArray
from ..video.one_euro import Smoothing
from ..video.reader import VideoReader
from ..video.tracker import Tracker
from ..video.trails import TAIL, Trails
from ..video.writer import VideoWriter
from .options import (
    DetectorModel,
    DetSizeText,
    Device,
    MinPresence,
    ProviderText,
    Strict,
    Threads,
    VariantText,
    counted,
    det_size_of,
    providers_of,
    stderr,
)
from .window import Window


def track(
    source: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO",
            help="A video file, URL (rtsp://, http://), camera's number, folder or pattern (%05d.png) of pictures.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The video, drawn on: .mp4, .mov, .mkv; .avi has no audio."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show it in a window; q ends it.")] = False,
    tail: Annotated[int, typer.Option(help="Frames that the drawn way of a face is long.")] = TAIL,
    fps: Annotated[float | None, typer.Option(help="Frames a second of pictures. (default: 25)")] = None,
    json_lines: Annotated[
        str | None, typer.Option(metavar="FILE", help="One JSON line a frame into FILE (- is stdout).")
    ] = None,
    model: Annotated[str, typer.Option(help="Landmark model: a name of `facelm models` or a path.")] = zoo.LANDMARKS,
    detector: DetectorModel = zoo.DETECTOR,
    variant: VariantText = "auto",
    det_size: DetSizeText = "auto",
    max_faces: Annotated[int | None, typer.Option(help="Follow the best faces only.")] = None,
    min_presence: MinPresence = None,
    redetect_every: Annotated[int, typer.Option(help="Frames after which more faces are looked for.")] = 10,
    smooth: Annotated[bool, typer.Option("--smooth/--no-smooth", help="Steady the points (One-Euro filter).")] = True,
    device: Device = "cpu",
    provider: ProviderText = None,
    strict: Strict = False,
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no last line.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Where the time went, on stderr at the end.")] = False,
) -> None:
    """Follow the faces of a video, or of a camera until Ctrl-C.

    The video that is written has the audio and the times of the one that is read, and each face's number and way.

    Of a video file that is cut off, what can be read is followed, with a warning and exit code 1.
    """
    if output is None and json_lines is None and not show:
        raise InputError("nothing to do: add -o FILE for a video, --json-lines FILE, or --show")
    lines_path = None if json_lines is None or json_lines == "-" else Path(json_lines)
    outputs = {"-o": output, "--json-lines": lines_path}
    check_outputs(
        {option: path for option, path in outputs.items() if path is not None},
        [Path(source), Path(model), Path(detector)],
    )
    trails = Trails(tail)
    video = VideoReader(source, fps=fps)
    may_stop = video.is_live or show
    smoothing: bool | Smoothing = Smoothing(fps=video.fps) if smooth else False
    options: dict[str, Any] = {
        "landmarks": model,
        "detector": detector,
        "variant": variant,
        "det_size": det_size_of(det_size),
        "device": device,
        "providers": providers_of(provider, device),
        "strict": strict,
        "licence_notice": not quiet,
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
            writer = output and stack.enter_context(
                VideoWriter(output, video.fps, audio=video.path, keep_interrupted=may_stop)
            )
            window = Window(f"facelm track {source}") if show else None
            if window is not None:
                stack.enter_context(window)
            for index, (seconds, frame) in enumerate(_with_progress(stack, video, quiet=quiet)):
                started = time.perf_counter()
                faces = tracker(frame)
                spent, count = spent + time.perf_counter() - started, index + 1
                numbers.update(face.track_id for face in faces)
                drawn = trails(frame, faces) if writer or window is not None else frame
                if writer:
                    writer.write(drawn, seconds)
                if json_lines == "-":
                    typer.echo(_line(index, seconds, faces))
                elif lines is not None:
                    lines.write(f"{_line(index, seconds, faces)}\n".encode())
                if window is not None and not window.show(drawn):
                    raise KeyboardInterrupt
            if not count:
                raise ImageError(f"{source} has no frame that can be read")
    except KeyboardInterrupt:
        if not may_stop or not count:
            raise
    if not quiet:
        told = f"{counted(count, 'frame')}, {counted(len(numbers), 'face')}"
        stderr.print(f"{told}, {spent / count * 1e3:.1f} ms a frame")
    if tracker.aligner.profile is not None:
        stderr.print(str(tracker.aligner.profile), markup=False)
    if video.ended_early:  # what was read of it is written, and the log tells the frames
        raise typer.Exit(1)


class _Rate(ProgressColumn):
    """How many frames a second are done."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} frames/s")


def _with_progress(stack: ExitStack, video: VideoReader, *, quiet: bool) -> Iterator[tuple[float, ImageArray]]:
    """The frames with their seconds, and a bar while there is a terminal to show it."""
    hidden = quiet or not stderr.is_terminal
    # A bar on the terminal must not take the lines that go to a pipe.
    columns = (*Progress.get_default_columns(), _Rate())
    bar = Progress(*columns, console=stderr, transient=True, disable=hidden, redirect_stdout=sys.stdout.isatty())
    stack.enter_context(bar)
    yield from bar.track(video.timed(), total=video.count, description="tracking")


def _line(index: int, seconds: float, faces: list[Face]) -> str:
    record = {"frame": index, "seconds": round(seconds, 3), "faces": [face.to_dict() for face in faces]}
    return json.dumps(record, ensure_ascii=False)
