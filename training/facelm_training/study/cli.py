"""``facelm study NAME``: train a study's runs, and write what they say of the paper's claims."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from facelm_export.cli import require_torch


def study_command(
    study: Annotated[
        str | None, typer.Argument(help="a packaged study's name or a .toml file; without, the names are listed")
    ] = None,
    data: Annotated[str | None, typer.Option(help="the folder of the study's data sets")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="where NAME.md, .json and .png go")] = Path(
        "training/results/studies"
    ),
    runs: Annotated[
        Path, typer.Option(help="where the trainings go, in a folder of the study's name; they resume there")
    ] = Path("runs/studies"),
    seeds: Annotated[int | None, typer.Option(help="the first seeds only", min=1)] = None,
    backbone: Annotated[
        str | None, typer.Option(help="an ImageNet checkpoint in the place of the recipe's; '' for random weights")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:<index>")] = "cpu",
    limit: Annotated[int | None, typer.Option(help="the first faces of each data set only, for a trial")] = None,
) -> None:
    """Make claims of a paper again: trainings that differ in one setting, with the same seeds, data order and budget.

    The table is written anew after each training; started again, the study goes on. Of what the table's NAME.json in
    OUT holds of the same recipes nothing is trained again; one of other faces is refused.
    """
    from .definition import names, read

    if study is None:
        for name in names():
            typer.echo(f"{name}: {read(name).title}")
        return
    require_torch("training", "train,export,cpu")
    import cv2
    import torch

    from facelm_sdk.errors import InputError
    from facelm_sdk.files import write_bytes

    from .. import datasets
    from ..cli import read_faces
    from ..data import faces_of
    from ..experiments import write_results
    from .report import draw, known, markdown, result
    from .runner import Faces, run_all

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = read(study)
    first = found.recipe_of(found.runs[0], found.seeds[0])
    if data is None:
        raise InputError("give the folder of the study's data sets (--data DIR)")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"{device} was asked for, but this PyTorch ({torch.__version__}) sees no CUDA device")
    cv2.setNumThreads(1)
    if threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if seeds:
        found = replace(found, seeds=found.seeds[:seeds])
    if backbone is not None:
        found = replace(found, recipe={**found.recipe, "backbone": backbone})
    reported = datasets.open_below(found.report, data)
    faces = Faces(*read_faces(first, [data], limit), faces_of(reported, limit))
    facts = {
        "trained on": f"{len(faces.train)} faces of {', '.join(source.data for source in first.sources)}",
        "best weights chosen on": f"{len(faces.chosen_on)} faces of {first.held_out}",
        "scores on": f"{len(faces.reported)} faces of {reported.title}, crops cut by the annotated points",
    }
    outcomes = known(out / f"{found.name}.json", found, facts)
    command = f"facelm study {study} --data DIR"
    for run, seed, outcome in run_all(found, faces, runs / found.name, data, outcomes, device=device, limit=limit):
        outcomes[run.name][seed] = outcome
        write_results(out, found.name, command, result(found, outcomes, facts), draw(found, outcomes))
        write_bytes(out / f"{found.name}.md", markdown(found, outcomes, facts).encode())
    typer.echo(out / f"{found.name}.md")
