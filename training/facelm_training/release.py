"""``facelm release``: evaluate trained weights through the runtime and put them into the package."""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facelm_export.cli import require_torch
from facelm_sdk.errors import ModelFileError
from facelm_sdk.files import check_outputs, write_bytes, write_files
from facelm_sdk.zoo import DETECTOR

if TYPE_CHECKING:
    from facelm_export.exporter import Precision

    from .evaluation import Scores

CHECKPOINTS, RUNTIME = Path("models/weights/facelm_weights"), Path("facelm_sdk/weights")
"""Folders of the repository."""
LICENCE = "weights: research use, as their training data; code: MIT"
TESTS = ("300w/common:300w", "landmarks68/val:.")
"""Data sets below --data that a landmark model's card has scores on: never trained on, tuned or chosen on."""

PROTOCOLS = {
    "landmarks": "Inter-ocular NME and that of the parts of the face, crops cut by the five points of the package's "
    "own detector; Aligner: what it gives for the whole picture, where a face whose five points were off is aligned "
    "again and what is no face is dropped. A face that is not found is a failure and no part of a mean. Yaw is that of "
    "the annotated points, by PnP; the distance between the eyes shrinks with it, so the NME is also given by the size "
    "of the points' box.",
    "detection": "Frames: at IoU 0.5 with the teacher's boxes of score 0.8 and more; a detection on a less certain box "
    "is not counted. Landmark data sets: a face is found where the mean distance of the five points from those of the "
    "annotation is below 0.15 of the points' box; their error is in percent of the distance of the outer eye corners. "
    "Pictures without a face: those kept aside. All but the tables by threshold at the default threshold.",
}

PICTURES = """
## Pictures

![Cumulative error distribution on the test sets]({name}_ced.png)

![Portraits as they are, turned, rolled, darkened, blurred and covered, with the points found]({name}_sheet.jpg)

What `Aligner` with this model finds in two portraits in the public domain (NASA's of Eileen Collins, the US Navy's of
Grace Hopper, by James S. Davis) as they are, turned by a morphable head, rolled, darkened, blurred and covered.
"""

SCORES = """
## Pictures

![Recall, precision and false faces over the threshold]({name}_scores.png)
"""

TURNED = "turned68/test:turned68_test"
"""The same of a data set that python -m facelm_training.turned makes of the test faces; left out where it is not."""
NEGATIVES = "negatives"
IMAGENET = "imagenet_sample"
"""Folders below --data of pictures without a face."""
EXPLAINED = {
    "confidence": "ECE: the expected calibration error of the scores over 15 bins, 0 to 1. Mean scores beside the part "
    "of the points that lie within 5% of the eye distance of their labels; faces whose presence is at least 0.5. Half "
    "covered: in the crop, from one side.",
    "false faces": "What the detector takes for a face in held-out pictures without one, and how many of those a "
    "presence below 0.5 drops.",
}
"""What the columns of a table are that is not of errors."""

Table = dict[str, dict[str, Any]]


def release_command(
    weights: Annotated[Path, typer.Argument(help="a .safetensors file that `facelm train` wrote")],
    data: Annotated[Path, typer.Option(help="the folder of the data sets that the scores are on")],
    calib: Annotated[
        Path | None, typer.Option(help="pictures to calibrate int8 on; default: the package's portraits")
    ] = None,
    embed: Annotated[
        bool, typer.Option(help="put ONNX files into the runtime's package; without, the checkpoint is kept in fp16")
    ] = True,
    repository: Annotated[Path, typer.Option(help="the repository's root")] = Path(),
) -> None:
    """Score the weights on the test sets, write their model card, and embed them: safetensors, ONNX and manifest.

    All files are written at the end, or none; the weights are none of them.
    """
    require_torch("releasing", "train,export,cpu")
    from facelm_export import export
    from facelm_models import info, restore
    from facelm_models.weights import WeightsError, read_card, to_bytes

    try:
        network, card = restore(weights), {"licence": LICENCE, **read_card(weights)}
    except WeightsError as error:
        raise ModelFileError(str(error)) from error
    name, task = card["model"], info(card["model"]).task
    detector, manifest = repository / RUNTIME / f"{DETECTOR}.onnx", RUNTIME / "manifest.json"
    # An int8 detector finds faces where there are none.
    files: dict[Precision, str] = {"fp32": f"{name}.onnx"}
    if task == "landmarks":
        files["int8"] = f"{name}_int8.onnx"
    endings = (".safetensors", ".md", ".json", "_ced.png", "_sheet.jpg", "_reliability.png", "_scores.png")
    outputs = [CHECKPOINTS / f"{name}{ending}" for ending in endings]
    if embed:
        outputs += [*(RUNTIME / file for file in files.values()), manifest]
    check_outputs({f"the release's {path.name}": repository / path for path in outputs}, [weights])
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch, "staged")
        checkpoints, runtime = staged / CHECKPOINTS, staged / RUNTIME
        if embed and (repository / manifest).is_file():
            write_bytes(staged / manifest, (repository / manifest).read_bytes())

        def exported(precision: Precision, weights: Path) -> Path:
            target = Path(scratch, "exports") / files[precision]
            samples = calib if precision == "int8" else None
            return export(name, precision=precision, weights=weights, calib=samples, latency=False, out=target).path

        kept = Path(scratch, weights.name)  # what is scored is what stays
        write_bytes(kept, to_bytes(network, card, half=not embed))
        drafts = {precision: exported(precision, kept) for precision in files}
        if task == "detection":
            tables, accuracy = _detection(drafts["fp32"], data, checkpoints / f"{name}_scores.png")
        else:
            scores = _landmarks(drafts, detector, data)
            tables, accuracy = _tables(scores) | _by_yaw(scores), _accuracy(scores)
            _plot(scores, checkpoints / f"{name}_ced.png", name)
            write_bytes(checkpoints / f"{name}_sheet.jpg", _sheet(drafts["fp32"], detector, data))
            tables |= _confidence(drafts, detector, data, checkpoints / f"{name}_reliability.png")
        final = checkpoints / f"{name}.safetensors"
        for precision in reversed(files):  # the checkpoint that stays says how good fp32 is
            write_bytes(final, to_bytes(network, card | {"accuracy": accuracy[precision]}, half=not embed))
            if embed:
                write_bytes(runtime / files[precision], exported(precision, final).read_bytes())
                _enter(staged / manifest, name, task, runtime / files[precision], precision)
        write_bytes(checkpoints / f"{name}.md", _markdown(name, task, card, tables).encode())
        write_bytes(checkpoints / f"{name}.json", (json.dumps(tables, indent=1) + "\n").encode())
        made = [path.relative_to(staged) for path in staged.rglob("*") if path.is_file()]
        write_files({repository / path: (staged / path).read_bytes() for path in made})
    typer.echo(json.dumps(tables, indent=1))


def _detection(onnx: Path, data: Path, plot: Path) -> tuple[dict[str, Table], dict[str, Any]]:
    """The tables of a detector, with the package's landmarker, and what the file says of itself."""
    from facelm_sdk import Detector, Landmarker

    from . import datasets
    from .figures import plot_thresholds
    from .release_scores import detector_tables

    tests = {"common": datasets.open_below(TESTS[0], data)}
    if (data / TURNED.partition(":")[2]).is_dir():
        tests["turned"] = datasets.open_below(TURNED, data)
    folders = [data / name for name in (NEGATIVES, IMAGENET) if (data / name).is_dir()]
    detector = Detector(onnx)
    tables = detector_tables(detector, Landmarker(), data, folders, tests)
    title = f"{detector.spec.name}, threshold {detector.det_thresh:g}"
    plot_thresholds(tables["by threshold"], plot, title)
    frames, empty = tables["frames/val, by Aligner"], tables["pictures without a face"]["all"]
    return tables, {"fp32": {"val frames, by Aligner": frames["all"], "pictures without a face": empty}}


def _landmarks(files: Mapping[Precision, Path], detector: Path, data: Path) -> dict[str, list[Scores]]:
    """The scores on the test sets by how a model is run: in fp32, in int8, with flip averaging and by Aligner."""
    from rich.progress import track

    from facelm_sdk import Aligner, Detector, Landmarker

    from . import datasets
    from .evaluation import Cut, predict, predict_whole, score

    finder = Detector(detector)
    result: dict[str, list[Scores]] = {}
    specs = (*TESTS, TURNED) if (data / TURNED.partition(":")[2]).is_dir() else TESTS
    opened = [datasets.open_below(spec, data) for spec in specs]
    for flip, (precision, file) in itertools.product((False, True), files.items()):
        landmarker = Landmarker(file, flip=flip)
        row = precision + (", flip averaging" if flip else "")
        for dataset in opened:
            faces = track(dataset, f"{row}, {dataset.title}", len(dataset))
            points = predict(faces, landmarker, Cut.of(landmarker.recipe), finder)
            result.setdefault(row, []).append(score(dataset, points, landmarker.spec.markup))
    for precision, file in files.items():
        aligner, row = Aligner(file, finder), f"{precision}, Aligner"
        for dataset in opened:
            faces = track(dataset, f"{row}, {dataset.title}", len(dataset))
            points = predict_whole(faces, aligner)
            result.setdefault(row, []).append(score(dataset, points, aligner.landmarker.spec.markup))
    return result


def _confidence(files: Mapping[Precision, Path], detector: Path, data: Path, plot: Path) -> dict[str, Table]:
    """How far the scores and presence can be trusted, by precision; nothing of models that have none."""
    from facelm_sdk import Detector, Landmarker

    from . import datasets
    from .figures import plot_reliability
    from .reliability import report

    tables: dict[str, Table] = {}
    for precision, file in files.items():
        landmarker = Landmarker(file)
        if not landmarker.spec.has_presence:
            return {}
        opened = [datasets.open_below(spec, data) for spec in TESTS]
        found = report(landmarker, Detector(detector), opened, data / NEGATIVES)
        for title, table in found.tables().items():
            rows = {f"{precision}, {row}": figures for row, figures in table.items()}
            tables.setdefault(title, {}).update(rows)
        if precision == "fp32":
            plot_reliability({name: one.bins for name, one in found.observed.items()}, plot, landmarker.spec.name)
    return tables


def _figures(scores: Scores) -> dict[str, Any]:
    return next(iter(scores.rows(scores.dataset.metrics[0]).values()))


def _tables(scores: Mapping[str, list[Scores]]) -> dict[str, Table]:
    """A table for each data set, a row for each way of running."""
    tables: dict[str, Table] = {}
    for row, by_set in scores.items():
        for one in by_set:
            parts = next(iter(one.regions().values()))
            figures = _figures(one) | {part: round(error, 2) for part, error in parts.items()}
            tables.setdefault(one.dataset.title, {})[row] = figures
    return tables


def _by_yaw(scores: Mapping[str, list[Scores]]) -> dict[str, Table]:
    """A table for each data set, a row for each range of the yaw: the NME by precision, of two normalisers."""
    tables: dict[str, Table] = {}
    for name, by_set in scores.items():
        for one in by_set if name in ("fp32", "int8") else ():
            first = one.dataset.metrics[0].norm
            for bounds, row in one.by_yaw().items():
                entry = tables.setdefault(f"{one.dataset.title} by yaw", {}).setdefault(f"{bounds} degrees", {})
                entry |= {"faces": row["faces"], f"{name}, nme": row[first], f"{name}, nme by box size": row["box"]}
    return tables


def _accuracy(scores: Mapping[str, list[Scores]]) -> dict[str, dict[str, Any]]:
    """What a file says of itself, by precision."""
    return {
        precision: {f"{one.dataset.title}, inter-ocular %": _figures(one) for one in by_set}
        for precision, by_set in scores.items()
    }


def _plot(scores: Mapping[str, list[Scores]], path: Path, name: str) -> None:
    from .figures import plot_ced

    curves = {
        f"{one.dataset.title}, {row}": one.errors[one.dataset.metrics[0].norm]
        for row, by_set in scores.items()
        for one in by_set
        if row.startswith("fp32")
    }
    plot_ced(curves, path, f"{name}, own detector")


def _sheet(model: Path, detector: Path, data: Path) -> bytes:
    """The contact sheet's JPEG; turned faces are on it where the morphable head lies in ``data``."""
    from facelm_sdk import Aligner

    from .contact_sheet import contact_sheet, encoded
    from .turned import FILE, Head

    head = Head(data / FILE) if (data / FILE).is_file() else None
    return encoded(contact_sheet(Aligner(model, detector), head))


def _enter(manifest: Path, name: str, task: str, file: Path, precision: str = "fp32") -> None:
    models = json.loads(manifest.read_text())["models"] if manifest.is_file() else []
    entry = {
        "name": name,
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "task": task,
        "precision": precision,
    }
    others = [m for m in models if (m["name"], m.get("precision", "fp32")) != (name, precision)]
    models = sorted([*others, entry], key=lambda m: (str(m["name"]), str(m.get("precision", "fp32"))))
    write_bytes(manifest, (json.dumps({"models": models}, indent=2) + "\n").encode())


def _rows(scores: Table) -> str:
    columns = list(dict.fromkeys(key for row in scores.values() for key in row))
    head = f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}\n"
    return head + "".join(
        f"| {name} | {' | '.join(_cell(row.get(column, '')) for column in columns)} |\n" for name, row in scores.items()
    )


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)


def _markdown(name: str, task: str, card: dict[str, Any], tables: dict[str, Table]) -> str:
    run = f"- **Run**: {card['run']}\n" if "run" in card else ""
    texts = {title: f"{EXPLAINED[title]}\n\n" if title in EXPLAINED else "" for title in tables}
    body = "\n".join(f"### {title}\n\n{texts[title]}{_rows(table)}" for title, table in tables.items())
    pictures = (PICTURES if task == "landmarks" else SCORES).format(name=name)
    return (
        f"# Model card: {name}\n\n"
        f"- **Data**: {card.get('data', 'not stated')}\n"
        f"- **Terms**: {card['licence']}\n"
        f"- **Recipe**: {card.get('recipe', 'not stated')}\n"
        f"{run}"
        f"- **Trained by**: `facelm train {name} --data DATA --out runs/{name}`\n\n"
        f"## Scores, percent\n\n"
        f"{PROTOCOLS[task]}\n\n"
        f"{body}\n{card.get('floor', '')}\n{pictures}"
    )
