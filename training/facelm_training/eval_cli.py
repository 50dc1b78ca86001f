"""``facelm eval``: a model's rows of the papers' tables on public data sets."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shlex
import sys
from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from facelm_sdk import zoo
from facelm_sdk.cli.options import ProviderText, Strict, providers_of
from facelm_sdk.errors import InputError
from facelm_sdk.files import check_outputs, write_bytes

if TYPE_CHECKING:
    from facelm_sdk import Detector, Landmarker
    from facelm_sdk.runtimes.open import Variant

    from .datasets import Dataset, Sample
    from .evaluation import Cut, Scores

PACKAGES = ("facelm-sdk", "numpy", "opencv-python", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu")


def eval_command(
    model: Annotated[str, typer.Option("--model", "-m", help="A name of `facelm models` or a path to an .onnx.")],
    data: Annotated[
        list[str],
        typer.Option(
            metavar="NAME:DIR",
            help="A data set: wflw, 300w, cofw, cofw68, aflw19, jd106 or landmarks68, or NAME/PART:DIR with a split, "
            "subset or label (wflw/pose:DIR). May be given several times.",
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where JSON and CED plots go.")] = None,
    box: Annotated[
        str | None,
        typer.Option(
            help="Models cut by a box: detector (the default: what users run), landmarks (the annotation's, as in the "
            "papers) or dataset."
        ),
    ] = None,
    points: Annotated[
        str | None, typer.Option(help="Models cut by five points: detector, dataset, or truth (an oracle).")
    ] = None,
    detector: Annotated[str, typer.Option(help="Detector: a name or a path.")] = zoo.DETECTOR,
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Average with the mirrored crop. (default: as the model does)"),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="This many faces, evenly spread, for a trial.")] = None,
    batch: Annotated[int, typer.Option(help="Crops in a run, the mirrored ones counted.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:<index>.")] = "cpu",
    provider: ProviderText = None,
    strict: Strict = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a run. (default: onnxruntime's)")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Score an exported model on data sets: NME, failure rate and AUC of each subset, and errors by part of the face.

    A face that is not found, for want of a detection with an IoU of 0.3 with the landmarks' box, counts as a failure
    and is no part of the mean.

    Faces are found and cut as users' are, by the detector; --box landmarks is the papers' protocol.
    """
    from facelm_sdk import Detector, Landmarker

    from . import datasets
    from .evaluation import Cut, common_markup, predict, score

    if Path(model).suffix.lower() in (".safetensors", ".pth", ".pt"):
        raise InputError(
            f"{model} holds weights; export them first: facelm-export --model NAME --weights {model} -o NAME.onnx"
        )
    if batch < 1 or (limit is not None and limit < 1):
        raise InputError("--batch and --limit are at least 1")
    # An embedded model's figures should not depend on the machine.
    variant: Variant = "auto" if Path(model).suffix else "fp32"
    options: dict[str, Any] = {
        "device": device,
        "providers": providers_of(provider, device),
        "strict": strict,
        "threads": threads,
        "licence_notice": not quiet,
    }
    landmarker = Landmarker(model, flip=flip, max_batch=batch, variant=variant, **options)
    cut = Cut.of(landmarker.recipe, box, points)
    finder = Detector(detector, **options) if cut.needs_detector else None
    console, stderr = Console(highlight=False), Console(stderr=True, highlight=False, soft_wrap=True)
    file = zoo.resolve(model).path
    record = _model_record(landmarker, file, flip) | {"crop": _cut_record(cut, finder)}
    stems: list[str] = []
    for spec in data:
        dataset = datasets.open(spec)
        common_markup(landmarker.spec.markup, dataset.info.markup)  # told before hours of work
        stems.append(_stem(landmarker.spec.name, dataset, stems))
        if out is not None:
            check_outputs(_files(out, stems[-1]), [file, Path(detector)])
        dataset = _limited(dataset, limit, stderr)
        with Progress(console=stderr, transient=True, disable=quiet) as bar:
            track = partial(_tracked, bar, dataset)
            found = predict(dataset, landmarker, cut, finder, batch=batch, track=track)
        scores = score(dataset, found, landmarker.spec.markup)
        _print(console, scores, landmarker.spec.name, cut)
        if out is not None:
            _write(out, stems[-1], scores, spec, record | {"limit": limit}, stderr)


def _tracked(bar: Progress, dataset: Dataset, samples: Iterable[Sample]) -> Iterable[Sample]:
    return bar.track(samples, total=len(dataset), description=dataset.title)


def _limited(dataset: Dataset, limit: int | None, stderr: Console) -> Dataset:
    """At most ``limit`` faces, evenly spread so that every subset has its share; told where faces are missing."""
    if len(dataset) != dataset.published:
        stderr.print(
            f"{dataset.title} has {len(dataset)} faces here, {dataset.published} as published: the scores are not "
            "comparable with the papers'",
            style="yellow",
        )
    if limit is None or limit >= len(dataset):
        return dataset
    return dataset.part([round(index * (len(dataset) - 1) / max(limit - 1, 1)) for index in range(limit)])


def _model_record(landmarker: Landmarker, file: Path, flip: bool | None) -> dict[str, Any]:
    spec = landmarker.spec
    return {
        "model": {
            "name": spec.name,
            "file": file.name,
            "weights_sha256": spec.weights_sha256,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "markup": spec.markup,
            "precision": spec.precision,
            "flip": bool(flip) or spec.flip,
            "crop": landmarker.recipe.to_dict(),
            "providers": list(landmarker.session.providers),
        }
    }


def _cut_record(cut: Cut, finder: Detector | None) -> dict[str, Any]:
    return {
        "by": cut.recipe.kind,
        "source": cut.source,
        "description": cut.description,
        "detector": None if finder is None else finder.spec.name,
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _print(console: Console, scores: Scores, model: str, cut: Cut) -> None:
    dataset = scores.dataset
    head = f"[bold]{escape(model)}[/] on [bold]{dataset.title}[/]"
    console.print(f"\n{head}, {len(dataset)} faces, {scores.markup.name} points", soft_wrap=True)
    console.print(f"crop by {cut.description}", soft_wrap=True)
    if cut.recipe.kind == "box" and cut.needs_detector:
        console.print("so users run it; the papers' protocol is --box landmarks", soft_wrap=True)
    for metric in dataset.metrics:
        percent = f"{100 * metric.threshold:g}"
        heads = ("faces", "missed", "NME", "median", f"FR{percent}", f"AUC{percent}")
        rows = {name: list(row.values()) for name, row in scores.rows(metric).items()}
        console.print(_table(f"{_words(metric.norm)}, %", heads, rows))
    regions = scores.regions()
    parts = tuple(_words(name) for name in next(iter(regions.values())))
    title = f"error by part of the face, {_words(dataset.metrics[0].norm)}, %"
    console.print(_table(title, parts, {name: list(row.values()) for name, row in regions.items()}))
    if yaws := scores.by_yaw():
        rows = {f"{bounds} degrees": list(row.values()) for bounds, row in yaws.items()}
        columns = ("faces", "missed", f"NME, {_words(dataset.metrics[0].norm)}", "NME, box size")
        console.print(_table("by yaw of the annotated points, %", columns, rows))


def _words(name: str) -> str:
    return {"inter_ocular": "inter-ocular", "inter_pupil": "inter-pupil", "diag": "box diagonal"}.get(
        name, name.replace("_", " ")
    )


def _table(title: str, heads: tuple[str, ...], rows: dict[str, list[Any]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column("")
    for head in heads:
        table.add_column(head, justify="right")
    for name, values in rows.items():
        table.add_row(name, *map(_cell, values))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def _stem(model: str, dataset: Dataset, others: Collection[str]) -> str:
    """What the results' names begin with, as no other's: copies of one set have one title."""
    stem = base = f"{model}_{dataset.title.replace('/', '_')}"
    number = 1
    while stem in others:
        number += 1
        stem = f"{base}_{number}"
    return stem


def _files(out: Path, stem: str) -> dict[str, Path]:
    return {"the scores": out / f"{stem}.json", "the plot": out / f"{stem}_ced.png"}


def _write(out: Path, stem: str, scores: Scores, spec: str, record: dict[str, Any], stderr: Console) -> None:
    from .figures import plot_ced

    dataset, first = scores.dataset, scores.dataset.metrics[0]
    facts = {
        "spec": spec,
        "title": dataset.title,
        "faces": len(dataset),
        "published": dataset.published,
        "markup": dataset.info.markup,
        "normalisers": [metric.norm for metric in dataset.metrics],
    }
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    content = {**record, "data": facts, **scores.to_dict(), "versions": _versions(), "command": command}
    scores_path, plot_path = _files(out, stem).values()
    write_bytes(scores_path, f"{json.dumps(_finite(content), ensure_ascii=False, indent=1)}\n".encode())
    title = f"{record['model']['name']} on {dataset.title}"
    errors = scores.errors[first.norm]
    curves = {name: errors[mask] for name, mask in dataset.subsets().items()}
    plot_ced(
        curves,
        plot_path,
        title,
        normaliser=_words(first.norm),
        limit=1.2 * first.threshold,
    )
    stderr.print(f"{scores_path}, {plot_path}")


def _finite(value: Any) -> Any:
    """The same with None for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
