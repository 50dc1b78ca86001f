"""``facelm release``: evaluate trained weights through the runtime and put them into the package."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from facelm_export.cli import require_torch
from facelm_sdk.files import write_bytes

LICENCE = "weights: research use, as their training data; code: MIT"


def release_command(
    weights: Annotated[Path, typer.Argument(help="a .safetensors file that `facelm train` wrote")],
    data: Annotated[Path, typer.Option(help="the training data folder, for the scores on its val split")],
    repository: Annotated[Path, typer.Option(help="the repository's root")] = Path(),
) -> None:
    """Score the weights on the val split, write their model card, and embed them: safetensors, ONNX and manifest."""
    require_torch("releasing", "train,export,cpu")
    from facelm_export import export
    from facelm_models import info, restore
    from facelm_models.weights import read_card, save

    network = restore(weights)
    card = {"licence": LICENCE, **read_card(weights)}
    name = card["model"]
    target, runtime = repository / "models/facelm_models/checkpoints", repository / "facelm_sdk/weights"
    with tempfile.TemporaryDirectory() as scratch:
        draft = export(name, weights=weights, latency=False, out=Path(scratch) / f"{name}.onnx").path
        scores = _score(name, info(name).task, draft, data, repository)
        card["accuracy"] = scores["summary"]
        final = Path(scratch) / f"{name}.safetensors"
        save(final, network, card)
        files = {"fp32": export(name, weights=final, latency=False, out=Path(scratch) / f"{name}.onnx").path}
        if info(name).task == "landmarks":  # an int8 detector finds faces where there are none
            int8 = Path(scratch) / f"{name}_int8.onnx"
            files["int8"] = export(name, precision="int8", weights=final, latency=False, out=int8).path
            scores["all"]["int8"] = _landmark_scores(int8, data, repository)[0]
        write_bytes(target / final.name, final.read_bytes())
        for precision, file in files.items():
            write_bytes(runtime / file.name, file.read_bytes())
            _enter(runtime / "manifest.json", name, info(name).task, runtime / file.name, precision)
    write_bytes(target / f"{name}.md", _markdown(name, card, scores["all"]).encode())
    typer.echo(json.dumps(scores["all"], indent=1))


def _score(name: str, task: str, onnx: Path, data: Path, repository: Path) -> dict[str, Any]:
    from facelm_sdk import Detector

    from .figures import plot_ced
    from .release_scores import detection_scores

    if task == "detection":
        scores = detection_scores(Detector(onnx), data)
        summary = {"val frames": scores["all"], "scenes without a face": scores["scenes without a face"]}
        return {"all": scores, "summary": summary}
    every: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for flip in (False, True):
        scores, errors = _landmark_scores(onnx, data, repository, flip=flip)
        label = "flip averaging" if flip else "single"
        every[label] = scores
        curves |= {f"{key}, {label}": value for key, value in errors.items() if "68" in key and "own" in key}
    plot_ced(
        curves, repository / f"models/facelm_models/checkpoints/{name}_ced.png", f"{name}: val people of landmarks68"
    )
    key = "clean, 68, own detector"
    summary = {label: {k: v for k, v in every[label][key].items() if k != "faces"} for label in every}
    return {"all": every, "summary": {"val people, inter-ocular %": summary}}


def _landmark_scores(
    onnx: Path, data: Path, repository: Path, *, flip: bool | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scores and errors of a file, with the embedded detector in fp32."""
    from facelm_sdk import Detector, Landmarker

    from .release_scores import landmark_scores

    detector = Detector(repository / "facelm_sdk/weights/retinaface_mnet025.onnx")
    return landmark_scores(Landmarker(onnx, flip=flip), detector, data)


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


def _rows(scores: dict[str, Any]) -> str:
    columns = list(dict.fromkeys(key for row in scores.values() for key in row))
    head = f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}\n"
    return head + "".join(
        f"| {name} | {' | '.join(str(row.get(column, '')) for column in columns)} |\n" for name, row in scores.items()
    )


def _markdown(name: str, card: dict[str, Any], scores: dict[str, Any]) -> str:
    nested = "single" in scores
    run = f"- **Run**: {card['run']}\n" if "run" in card else ""
    tables = "\n".join(f"### {key}\n\n{_rows(value)}" for key, value in scores.items()) if nested else _rows(scores)
    return (
        f"# Model card: {name}\n\n"
        f"- **Data**: {card.get('data', 'not stated')}\n"
        f"- **Terms**: {card['licence']}\n"
        f"- **Recipe**: {card.get('recipe', 'not stated')}\n"
        f"{run}"
        f"- **Trained by**: `facelm train {name} --data DATA --out runs/{name}`\n\n"
        f"## Scores on the val split, percent\n\n{tables}\n{card.get('floor', '')}\n"
    )
