"""Compare training runs: ``python training/tools/results.py RUN... --out DIR --name NAME``.

Reads the folders that ``facelm train`` left and writes NAME.md (a table), NAME.json (every evaluation) and NAME.png
(the learning curves).
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from facelm_sdk.errors import InputError
from facelm_sdk.files import write_bytes
from facelm_training.figures import new_figure, png


def read_run(folder: Path) -> dict[str, Any]:
    """Stages with their evaluations, in the order they were trained, and the network of a finished run."""
    from facelm_models import complexity, info, restore
    from facelm_models.weights import read_card

    weights = next(iter(folder.glob("*.safetensors")), None)
    if weights is None:
        raise InputError(f"{folder} holds no finished run: there is no .safetensors file")
    card = read_card(weights)
    logs = sorted(folder.glob("*/log.csv"), key=lambda path: path.stat().st_mtime)
    stages: list[dict[str, Any]] = []
    for log in logs:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(log.open())]
        stages.append({"stage": log.parent.name, "rows": rows})
    if not stages:
        raise InputError(f"{folder} holds no log.csv of any stage")
    network = restore(weights)
    size = card["config"].get("size", info(card["model"]).input_size)
    return {
        "run": folder.name,
        "model": card["model"],
        "size": size,
        "val_nme": min(row["val_nme"] for row in stages[-1]["rows"]),
        "parameters": complexity.parameters(network),
        "multiply_adds": complexity.multiply_adds(network, size)["Global"],
        "minutes": round(sum(stage["rows"][-1]["minutes"] for stage in stages), 1),
        "stages": stages,
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| model | crop | val NME, % | parameters, M | multiply-adds, G | steps | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        steps = " + ".join(f"{stage['rows'][-1]['step']:.0f}" for stage in run["stages"])
        lines.append(
            f"| {run['model']} | {run['size']} | {run['val_nme']:.2f} | {run['parameters'] / 1e6:.2f} | "
            f"{run['multiply_adds']:.2f} | {steps} | {run['minutes']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def plot(runs: list[dict[str, Any]]) -> bytes:
    """Learning curves as a PNG: error over steps, the stages of a run one after the other."""
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    for run in runs:
        steps, errors, before = [], [], 0.0
        for stage in run["stages"]:
            steps += [before + row["step"] for row in stage["rows"]]
            errors += [row["val_nme"] for row in stage["rows"]]
            before = steps[-1]
        axes.plot(steps, errors, marker="o", markersize=3, label=f"{run['model']}: {run['val_nme']:.2f}%")
    axes.set(xlabel="step", ylabel="val NME, %", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return png(figure)


def main(
    runs: Annotated[list[Path], typer.Argument(help="folders that facelm train wrote")],
    out: Annotated[Path, typer.Option(help="where the table, the figures and the plot go")],
    name: Annotated[str, typer.Option(help="their name")] = "landmarks68",
) -> None:
    """The results of training runs side by side."""
    read = sorted((read_run(folder) for folder in runs), key=lambda run: float(run["val_nme"]))
    write_bytes(out / f"{name}.json", json.dumps(read, indent=1).encode())
    write_bytes(out / f"{name}.png", plot(read))
    write_bytes(out / f"{name}.md", table(read).encode())


if __name__ == "__main__":
    typer.run(main)
