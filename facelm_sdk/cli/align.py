"""``facelm align``: faces and landmarks of pictures."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.progress import Progress
from typer.core import TyperCommand

from .. import interop, zoo
from ..aligner import Aligner
from ..errors import InputError
from ..files import Identity, LinesFile, check_outputs, check_place, identities, identity, write_bytes
from ..images.draw import draw as draw_faces
from ..images.folder import Item, beside_reserved, expand, places, told_of_none, write_image
from ..images.picture import Picture
from ..interop.pts import write_pts
from ..parallel import checked_workers, map_in_order
from ..profile import READ, call, stage
from ..runtimes.open import Variant
from ..table import error_text, picture_errors
from ..types import MAX_CROP, Face
from .formats import NAMES, Format, Results, json_bytes, open_results
from .options import (
    DetectorModel,
    DetSizeText,
    DetThresh,
    Device,
    Flip,
    LandmarkModel,
    MaxFaces,
    MinPresence,
    ProviderText,
    Strict,
    Threads,
    VariantText,
    Workers,
    counted,
    det_size_of,
    printable,
    providers_of,
    stderr,
)


class Drawing(str, Enum):
    """What is drawn on a picture."""

    NOTHING = "no"
    LANDMARKS = "landmarks"
    POSE = "pose"


class Engine(str, Enum):
    """What shares a big job out."""

    LOCAL = "local"
    RAY = "ray"


class AlignCommand(TyperCommand):
    """``--draw`` may stand alone, before a picture even: only a word of :class:`Drawing` behind it is its value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write ``--draw``, ``--draw pose`` and ``--no-draw`` as click reads an option that has a value."""
        end = args.index("--") if "--" in args else len(args)
        rest, words = args[:end], []
        while rest:
            word = rest.pop(0)
            if word == "--draw":
                known = bool(rest) and rest[0] in set(Drawing)
                word = f"--draw={rest.pop(0) if known else Drawing.LANDMARKS.value}"
            words.append("--draw=no" if word == "--no-draw" else word)
        return super().parse_args(ctx, [*words, *args[end:]])


def align(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, folders (searched recursively), glob patterns; with --out also LIST.txt, .parquet, URLs."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where results go: DIR/<name>.json each.")
    ] = None,
    kind: Annotated[
        Format | None,
        typer.Option(
            "--format",
            show_default=False,
            help="A file each: json (default), pts (DIR/<name>_<i>.pts); or one: DIR/faces.jsonl, .csv, .parquet, "
            "DIR/coco.json.",
        ),
    ] = None,
    model: LandmarkModel = zoo.LANDMARKS,
    detector: DetectorModel = zoo.DETECTOR,
    flip: Flip = None,
    device: Device = "cpu",
    provider: ProviderText = None,
    strict: Strict = False,
    variant: VariantText = "auto",
    det_size: DetSizeText = "auto",
    det_thresh: DetThresh = None,
    max_faces: MaxFaces = None,
    min_presence: MinPresence = None,
    threads: Threads = None,
    workers: Workers = None,
    json_lines: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="One JSON line a picture into FILE (- is stdout), not one file each."),
    ] = None,
    draw: Annotated[
        Drawing,
        typer.Option(
            "--draw",
            metavar="[pose]",
            show_default=False,
            help="Annotated pictures, unsure points faint: DIR/<name>.jpg; --draw pose: pose and openness too.",
        ),
    ] = Drawing.NOTHING,
    crops: Annotated[
        int | None, typer.Option(metavar="SIZE", help="ArcFace crops: DIR/crops/<name>_<i>.png; 112 is usual.")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="Refuse pictures of more. (default: FACELM_MAX_PIXELS, or 178956970)")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.parquet",
            help="A big job: all faces as rows of one file or URL. Killed, it goes on where it was.",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="With --out: the column of pictures in .parquet sources. (default: a usual name)")
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(metavar="DIR|URL", help="With --out: where relative paths of lists lead from. (default: here)"),
    ] = None,
    engine: Annotated[
        Engine | None, typer.Option(help="With --out: what shares the work out. (default: local)", show_default=False)
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="With --engine ray: of a running cluster. (default: a local one)")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No line a face, no progress bar.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Where the time went, on stderr at the end.")] = False,
) -> None:
    """Find faces and their landmarks in pictures."""
    drawing = draw is not Drawing.NOTHING
    of_job = {"--column": column, "--root": root, "--engine": engine, "--address": address}
    if out is None and (given := [name for name, value in of_job.items() if value is not None]):
        raise InputError(f"{', '.join(given)}: only with --out FILE.parquet")
    one_each = {"-o": output, "--format": kind, "--json-lines": json_lines, "--draw": drawing, "--crops": crops}
    if out is not None and (given := [name for name, value in {**one_each, "--profile": profile}.items() if value]):
        raise InputError(f"{', '.join(given)}: not with --out, which writes one file of rows and nothing else")

    def open_aligner() -> Aligner:
        return Aligner(
            model,
            detector,
            flip=flip,
            variant=cast("Variant", variant),
            device=device,
            providers=providers_of(provider, device),
            strict=strict,
            det_size=det_size_of(det_size),
            det_thresh=det_thresh,
            threads=threads,
            max_faces=max_faces,
            min_presence=min_presence,
            profile=profile,
            max_pixels=max_pixels,
            licence_notice=not quiet,
        )

    if out is not None:
        from . import jobs

        jobs.run(
            sources,
            out,
            open_aligner(),
            workers=workers,
            column=column,
            root=root,
            engine=(engine or Engine.LOCAL).value,
            address=address,
            quiet=quiet,
        )
        return
    if output is None and (drawing or crops is not None):
        raise InputError("--draw and --crops need a folder: add -o DIR")
    if output is None and kind is not None:
        raise InputError("--format needs a folder: add -o DIR")
    kind = kind or (Format.JSON if json_lines is None else None)
    if crops is not None and not 1 <= crops <= MAX_CROP:
        raise InputError(f"--crops is a size of 1 to {MAX_CROP} pixels, not {crops}")
    side_by_side = checked_workers(workers)
    items, results = expand(sources, output)
    if results and not quiet:
        left_out = counted(len(results), "file")
        stderr.print(printable(f"{left_out} left out, of an earlier run in {output}"), markup=False)
    if not items:
        none = f"no pictures in {', '.join(sources)} but results of an earlier run"
        raise InputError(none if results else told_of_none(sources))
    lines_path = None if json_lines is None or json_lines == "-" else Path(json_lines)
    reserved = _reserved(items, [Path(model), Path(detector)], lines_path)
    records: dict[Item, Path] = {}
    drawn: dict[Item, Path] = {}
    if output is not None:
        check_place(output / "crops")
        records = places(items, output, ".json", reserved) if kind is Format.JSON else {}
        drawn = places(items, output, ".jpg", reserved) if drawing else {}
    aligner = open_aligner()
    failed = 0

    def work(item: Item) -> _Done | Exception:
        try:
            if item.problem is not None:
                raise InputError(item.problem)
            with call(aligner.profile):
                with stage(READ):
                    picture = Picture(item.path, max_pixels=max_pixels)
                    if drawing or crops is not None:
                        picture.view()  # in full
                faces = aligner(picture)
            record = interop.record(printable(str(item.path)), picture, faces, aligner)
            if output is not None:
                if item in records:
                    write_bytes(records[item], json_bytes(record, indent=1))
                for index, face in enumerate(faces if kind is Format.PTS else ()):
                    write_pts(beside_reserved(output / f"{item.stem}_{index}.pts", reserved), face)
                if item in drawn:
                    write_image(drawn[item], draw_faces(picture.view().image, faces, pose=draw is Drawing.POSE))
                for index, face in enumerate(faces if crops is not None else ()):
                    target = beside_reserved(output / "crops" / f"{item.stem}_{index}.png", reserved)
                    write_image(target, face.crop(picture.view().image, crops or 0, antialias=True))
        except picture_errors() as error:
            return error
        return _Done(record, faces)

    hidden = quiet or len(items) < 2 or not stderr.is_terminal
    # A bar on the terminal must not take the lines that go to a pipe.
    bar = Progress(console=stderr, transient=True, disable=hidden, redirect_stdout=sys.stdout.isatty())
    with ExitStack() as stack:
        lines = None if lines_path is None else stack.enter_context(LinesFile(lines_path))
        whole: Results | None = None
        if output is not None and kind in NAMES:
            spec = (aligner.pipeline or aligner.landmarker).spec
            path = beside_reserved(output / NAMES[kind], reserved)
            whole = stack.enter_context(open_results(kind, path, spec.markup, scores=spec.has_scores))
        stack.enter_context(bar)
        done_items = stack.enter_context(closing(map_in_order(work, items, min(side_by_side, len(items)))))
        for item, done in zip(items, bar.track(done_items, total=len(items), description="aligning"), strict=True):
            if isinstance(done, Exception):
                failed += 1
                stderr.print(printable(_told(item, done)), style="red", markup=False)
                continue
            if whole is not None:
                whole.add(done.record, done.faces)
            if json_lines == "-":
                typer.echo(json_bytes(done.record), nl=False)
                continue
            if lines is not None:
                lines.write(json_bytes(done.record))
            if not quiet:
                _print_faces(item, done)
    if aligner.profile is not None:
        stderr.print(str(aligner.profile), markup=False)
    if failed:
        stderr.print(f"{failed} of {counted(len(items), 'picture')} failed", style="red")
        raise typer.Exit(1)


def _reserved(items: list[Item], models: list[Path], lines: Path | None) -> set[Identity]:
    """The files that no result may be written over: what the run reads, and its file of lines."""
    inputs = [*(item.path for item in items), *models]
    if lines is None:
        return identities(inputs)
    check_outputs({"--json-lines": lines}, inputs)
    return identities(inputs) | {identity(lines)}


@dataclass(frozen=True, slots=True)
class _Done:
    """What was found in a picture, as it is written and as it is told."""

    record: dict[str, Any]
    faces: list[Face]


def _told(item: Item, error: Exception) -> str:
    text, name = error_text(error), str(item.path)
    return text if item.problem or text.startswith((name, f"cannot read {name}")) else f"{name}: {text}"


def _print_faces(item: Item, done: _Done) -> None:
    name, faces = printable(str(item.path)), done.faces
    if not faces:
        typer.echo(f"{name}: no face")
    for index, (face, record) in enumerate(zip(faces, done.record["faces"], strict=True), start=1):
        box = " ".join(f"{value:.0f}" for value in face.bbox)
        more = [f"{angle} {round(value)}" for angle, value in (record["pose"] or {}).items()]
        if (eyes := record["eye_openness"]) is not None and record["mouth_openness"] is not None:
            more += [f"eyes {eyes['left']:.2f} {eyes['right']:.2f}", f"mouth {record['mouth_openness']:.2f}"]
        typer.echo(
            f"{name}: face {index}/{len(faces)}  score {face.score or 0:.3f}  box {box}  "
            + "  ".join([f"{len(face.landmarks)} points ({face.markup})", *more])
        )
