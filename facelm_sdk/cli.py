"""The ``facelm`` command: align, list the models, look over the installation, measure, and what other packages add."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from . import bench as benching
from . import doctor as doctoring
from . import zoo
from .aligner import Aligner
from .cli_options import DetSizeText, PrecisionText, det_size_of
from .draw import draw as draw_faces
from .errors import FacelmError, InputError, MissingDependencyError
from .files import write_bytes
from .folder_run import Item, beside_inputs, expand, write_image
from .inspect_model import inspect_model
from .inspect_text import in_words, rows
from .picture import Picture
from .profile import READ
from .session import OrtSession, Precision
from .track_cli import track
from .types import Face

PLUGIN_GROUP = "facelm.commands"

app = typer.Typer(
    name="facelm",
    help="Facial landmarks that run fast.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> None:
    """The entry point: an error of this project's is one red line and exit code 2."""
    add_plugins(app)
    try:
        app()
    except FacelmError as error:
        stderr.print(f"error: {error}", style="red", markup=False)
        sys.exit(2)


def _version(value: bool) -> None:
    if value:
        from . import __version__

        typer.echo(f"facelm-sdk {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def align(
    sources: Annotated[list[str], typer.Argument(help="Pictures, folders (searched recursively) or glob patterns.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where results go: DIR/<name>.json each.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Landmark model: a name of `facelm models` or a path; or the path of a pipeline.")
    ] = zoo.LANDMARKS,
    detector: Annotated[str, typer.Option(help="Detector: a name or a path.")] = zoo.DETECTOR,
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Average with the mirrored crop. (default: as the model does)"),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:<index>.")] = "cpu",
    precision: PrecisionText = "auto",
    det_size: DetSizeText = "auto",
    det_thresh: Annotated[float | None, typer.Option(help="Score threshold of faces. (default: the model's)")] = None,
    max_faces: Annotated[int | None, typer.Option(help="Keep the best faces of a picture.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a run. (default: onnxruntime's)")] = None,
    json_lines: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="One JSON line a picture into FILE (- is stdout), not one file each."),
    ] = None,
    draw: Annotated[bool, typer.Option("--draw/--no-draw", help="Annotated pictures: DIR/<name>.jpg.")] = False,
    crops: Annotated[
        int | None, typer.Option(metavar="SIZE", help="ArcFace crops: DIR/crops/<name>_<i>.png; 112 is usual.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where --device cannot be used.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No line a face, no progress bar.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Where the time went, on stderr at the end.")] = False,
) -> None:
    """Find faces and their landmarks in pictures."""
    if output is None and (draw or crops is not None):
        raise InputError("--draw and --crops need a folder: add -o DIR")
    if crops is not None and crops < 1:
        raise InputError(f"--crops is a size of at least 1 pixel, not {crops}")
    items = expand(sources, output)
    if not items:
        raise InputError(f"no pictures in {', '.join(sources)}")
    aligner = Aligner(
        model,
        detector,
        flip=flip,
        precision=cast("Precision", precision),
        device=device,
        strict=strict,
        det_size=det_size_of(det_size),
        det_thresh=det_thresh,
        threads=threads,
        max_faces=max_faces,
        profile=profile,
    )
    inputs = {item.path.resolve() for item in items}
    lines: list[str] = []
    failed = 0
    # A bar on the terminal must not take the lines that go to a pipe.
    bar = Progress(console=stderr, transient=True, disable=quiet or len(items) < 2, redirect_stdout=sys.stdout.isatty())
    with bar:
        for item in bar.track(items, description="aligning"):
            try:
                with aligner.timing.call():
                    with aligner.timing.stage(READ):
                        picture = Picture(item.path)
                        if draw or crops is not None:
                            picture.view()  # in full
                    faces = aligner(picture)
                record = _record(item, picture, faces, aligner)
                if output is not None:
                    if json_lines is None:
                        write_bytes(output / f"{item.stem}.json", _json(record, indent=1))
                    _write_pictures(output, item, picture, faces, inputs, draw=draw, crops=crops)
            except (FacelmError, OSError) as error:
                failed += 1
                stderr.print(f"{item.path}: {error}", style="red", markup=False)
                continue
            if json_lines == "-":
                typer.echo(_json(record), nl=False)
                continue
            if json_lines is not None:
                lines.append(_json(record).decode())
            if not quiet:
                _print_faces(item, faces)
    if json_lines is not None and json_lines != "-":
        write_bytes(Path(json_lines), "".join(lines).encode())
    if aligner.profile is not None:
        stderr.print(str(aligner.profile), markup=False)
    if failed:
        stderr.print(f"{failed} of {len(items)} pictures failed", style="red")
        raise typer.Exit(1)


app.command()(track)


def _json(record: dict[str, Any], indent: int | None = None) -> bytes:
    return f"{json.dumps(record, ensure_ascii=False, indent=indent)}\n".encode()


def _record(item: Item, picture: Picture, faces: list[Face], aligner: Aligner) -> dict[str, Any]:
    return {
        "source": str(item.path),
        "width": picture.width,
        "height": picture.height,
        "model": (aligner.pipeline or aligner.landmarker).spec.name,
        "detector": None if aligner.detector is None else aligner.detector.spec.name,
        "faces": [face.to_dict() for face in faces],
    }


def _write_pictures(
    output: Path,
    item: Item,
    picture: Picture,
    faces: list[Face],
    inputs: set[Path],
    *,
    draw: bool,
    crops: int | None,
) -> None:
    if draw:
        write_image(beside_inputs(output / f"{item.stem}.jpg", inputs), draw_faces(picture.view().image, faces))
    if crops is not None:
        for index, face in enumerate(faces):
            target = beside_inputs(output / "crops" / f"{item.stem}_{index}.png", inputs)
            write_image(target, face.crop(picture.view().image, crops))


def _print_faces(item: Item, faces: list[Face]) -> None:
    if not faces:
        typer.echo(f"{item.path}: no face")
    for index, face in enumerate(faces, start=1):
        box = " ".join(f"{value:.0f}" for value in face.bbox)
        typer.echo(
            f"{item.path}: face {index}/{len(faces)}  score {face.score or 0:.3f}  box {box}  "
            f"{len(face.landmarks)} points ({face.markup})"
        )


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="All of each model's contract as JSON.")] = False,
) -> None:
    """List the models inside the package."""
    rows = []
    for entry in zoo.list_models():
        file = zoo.resolve(entry.name, precision=entry.precision)
        spec = json.loads(OrtSession(file.path).spec.to_json())
        rows.append({**spec, "sha256": entry.sha256, "file": entry.file, "bytes": file.path.stat().st_size})
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    console = Console(highlight=False)
    for row in rows:
        title = f"{row['name']}, {row['precision']}"
        table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
        crop = f", crops of {row['crop']['size']} px" if row["crop"] else ""
        table.add_row("task", f"{row['task']}{crop}")
        table.add_row("markup", f"{row['markup']} ({row['num_landmarks']} points)")
        table.add_row("precision", f"{row['precision']}{', flip averaging inside' if row['flip'] else ''}")
        table.add_row("size", f"{row['bytes'] / 1e6:.2f} MB")
        table.add_row("accuracy", escape(in_words(row["accuracy"])))
        table.add_row("parity", escape(in_words(row["parity"])))
        for name in ("data", "licence", "sha256"):
            table.add_row(name, escape(row[name]))
        console.print(table)
    if not rows:
        console.print("there are no models in this package")


@app.command("inspect")
def inspect_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Exported files (.onnx, .engine, .xml), Triton repositories, weights (.safetensors), embedded names.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list, one entry a file.")] = False,
) -> None:
    """Print what model files say of themselves: inputs, outputs, crop, markup, precision, origin, parity."""
    console = Console(highlight=False)
    found: list[dict[str, Any]] = []
    failed = 0
    for file in files:
        try:
            found.append(inspect_model(file))
        except (FacelmError, OSError) as error:
            failed += 1
            found.append({"file": file, "error": str(error)})
            stderr.print(f"error: {error}", style="red", markup=False)
            continue
        if not as_json:
            for facts in (found[-1], *found[-1].get("models", ())):
                _print_facts(console, facts)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=1))
    if failed:
        raise typer.Exit(2 if len(files) == 1 else 1)


def _print_facts(console: Console, facts: dict[str, Any]) -> None:
    title = escape(str(facts["file"]))
    table = Table("", title=title, title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column(overflow="fold")  # whole checksums
    for label, text in rows(facts):
        table.add_row(label, escape(text))
    console.print(table)


@app.command()
def bench(
    model: Annotated[
        str | None,
        typer.Argument(help="A name of `facelm models` or a model file. (default: the whole Aligner)"),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of embedded models: auto, fp32, int8; of an .xml: f32, bf16.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Crops, or pictures of the Aligner, in one run.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a run. (default: onnxruntime's)")] = None,
    provider: Annotated[
        str | None, typer.Option(help=f"{', '.join(benching.PROVIDERS)}, or onnxruntime's own name. (default: cpu)")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:<index>.")] = "cpu",
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Average with the mirrored crop. (default: as the model does)"),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 3.0,
    picture: Annotated[
        str | None, typer.Option(metavar="FILE", help="What is looked at. (default: a 640x480 portrait)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Measure how fast a model, or the whole Aligner, runs on this machine."""
    found = benching.bench(
        model,
        precision=precision,
        batch=batch,
        threads=threads,
        provider=provider,
        device=device,
        flip=flip,
        seconds=seconds,
        picture=benching.PICTURE if picture is None else picture,
    )
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=1))
        return
    table = Table(show_header=False, box=None)
    for label, text in benching.lines(found):
        table.add_row(label, escape(text))
    Console(highlight=False).print(table)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False) -> None:
    """Look over the installation; exit code 1 where something should be mended."""
    checks = doctoring.run_checks()
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], ensure_ascii=False, indent=1))
    else:
        table = Table(show_header=False, box=None)
        for check in checks:
            table.add_row("[green]ok[/]" if check.ok else "[red]problem[/]", check.name, escape(check.detail))
        Console(highlight=False).print(table)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def add_plugins(target: typer.Typer) -> None:
    """Add the commands other packages offer; each is imported only when it is asked for."""
    own = {command.name or getattr(command.callback, "__name__", "") for command in target.registered_commands}
    for entry in entry_points(group=PLUGIN_GROUP):
        if entry.name not in own:
            own.add(entry.name)
            target.command(
                entry.name,
                help=f"From the package {entry.module.partition('.')[0]}; --help tells more.",
                add_help_option=False,
                context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
            )(_runner(entry))


def _runner(entry: EntryPoint) -> Any:
    def run(context: typer.Context) -> None:
        try:
            loaded = entry.load()
        except ImportError as error:
            raise MissingDependencyError(
                f'facelm {entry.name} cannot be loaded ({error}); type: pip install "facelm-sdk[{entry.name}]"'
            ) from error
        command = _command(loaded, entry.name)
        code = command.main(args=context.args, prog_name=f"facelm {entry.name}", standalone_mode=False)
        raise typer.Exit(code if isinstance(code, int) else 0)

    return run


def _command(loaded: Any, name: str) -> Any:
    """A runnable command from a Typer app, a click command, or a function with typer's annotations."""
    if hasattr(loaded, "main"):
        return loaded
    if not isinstance(loaded, typer.Typer):
        function, loaded = loaded, typer.Typer(add_completion=False)
        loaded.command(name)(function)
    return typer.main.get_command(loaded)
