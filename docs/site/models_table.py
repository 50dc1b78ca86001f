"""The tables of models that have a card: ``python docs/site/models_table.py`` makes them anew in which-model.md.

Names, points, sizes and terms are what the files say of themselves, errors those of the cards in models/weights, times
those of one run of the benchmarks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from benchmarks.report.results import Run, read  # noqa: E402
from facelm_sdk import zoo  # noqa: E402
from facelm_sdk.files import write_bytes  # noqa: E402
from facelm_sdk.inspect import inspect_model  # noqa: E402

PAGE = DOCS / "which-model.md"
MARKERS = ("<!-- models -->", "<!-- end of models -->")
RUN = ROOT / "benchmarks/results/epyc-zen4-1thread.json"
CARDS = "models/weights/facelm_weights"
DETECTOR_SIZE = 320
"""Pixels, the first pass of a detector."""

LANDMARKS_HEAD = (
    "| model | points | crop | file | MB | ms a face | error, 300-W common | error, turned faces | scores | terms |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)
DETECTORS_HEAD = (
    "| detector | points | MB | ms a pass | faces found | false boxes | terms |\n|---|---|---|---|---|---|---|"
)


def table() -> str:
    """The tables, in Markdown: embedded landmark models, detectors, and checkpoints that are not embedded, if any."""
    run = read(RUN)
    entries = sorted(zoo.list_models(), key=lambda entry: entry.name not in (zoo.LANDMARKS, zoo.DETECTOR))
    landmarks = [_embedded(entry, run) for entry in entries if entry.task == "landmarks"]
    detectors = [_detector(entry, run) for entry in entries if entry.task == "detection"]
    embedded = {entry.name for entry in entries}
    cards = sorted(path for path in (ROOT / CARDS).glob("*.json") if path.stem not in embedded)
    checkpoints = [_checkpoint(path.stem, run) for path in cards]
    tables = [[LANDMARKS_HEAD, *landmarks], [DETECTORS_HEAD, *detectors]]
    if checkpoints:
        tables.append(["Checkpoints of facelm-weights, to be exported first:", "", LANDMARKS_HEAD, *checkpoints])
    return "\n\n".join("\n".join(lines) for lines in tables) + "\n"


def with_table(text: str) -> str:
    """``text`` with the tables between their two markers made anew."""
    before, _, rest = text.partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    return f"{before}{MARKERS[0]}\n{table()}{MARKERS[1]}{after}"


def _embedded(entry: zoo.ModelEntry, run: Run) -> str:
    facts = inspect_model(zoo.WEIGHTS / entry.file)
    contract = facts["contract"]
    values = contract | {"size": contract["crop"]["size"], "scores": contract.get("has_scores")}
    return _landmarks(entry.name, entry.precision, facts, values, run)


def _checkpoint(name: str, run: Run) -> str:
    facts = inspect_model(ROOT / CARDS / f"{name}.safetensors")
    card = facts["details"]  # older ones do not say their markup
    values = {"markup": "ibug68", "scores": card["config"].get("confidence")} | card["config"] | card
    return _landmarks(name, "fp32", facts, values, run)


def _landmarks(name: str, precision: str, facts: dict[str, Any], values: dict[str, Any], run: Run) -> str:
    card = json.loads((ROOT / CARDS / f"{name}.json").read_text("utf-8"))
    data = [card.get(data) for data in ("300w/test/common", "turned68/test")]
    cells = (
        _name(name),
        f"{values['num_landmarks']} ({values['markup']})",
        f"{values['size']} px",
        precision,
        _megabytes(facts),
        _ms(run, "landmarks", model=name, batch=1, backend="onnxruntime", precision=precision),
        *("" if rows is None else f"{rows[precision]['nme']:.2f}%" for rows in data),
        "yes" if values["scores"] else "no",
        _terms(values),
    )
    return f"| {' | '.join(cells)} |"


def _detector(entry: zoo.ModelEntry, run: Run) -> str:
    facts = inspect_model(zoo.WEIGHTS / entry.file)
    contract = facts["contract"]
    found, card = contract["accuracy"].get("val frames"), ROOT / CARDS / f"{entry.name}.json"
    if card.exists():  # newer ones have those of the detector alone in their card
        found = json.loads(card.read_text("utf-8"))["frames/val"]["all"]
    size = {"size": DETECTOR_SIZE, "backend": "onnxruntime", "precision": entry.precision}
    cells = (
        _name(entry.name),
        "5 (kps5)",
        _megabytes(facts),
        _ms(run, "detection", model=entry.name, **size),
        f"{found['recall']:.1f}% of {found['faces']}",
        str(found["false boxes"]),
        _terms(contract),
    )
    return f"| {' | '.join(cells)} |"


def _name(name: str) -> str:
    default = ", the default" if name in (zoo.LANDMARKS, zoo.DETECTOR) else ""
    return f"[{name}](../{CARDS}/{name}.md){default}"


def _megabytes(facts: dict[str, Any]) -> str:
    return f"{facts['bytes'] / 1e6:.1f}"


def _ms(run: Run, test: str, **params: Any) -> str:
    entry = run.find(test, **params)
    return "" if entry is None else f"{entry.median:.1f}"


def _terms(described: dict[str, Any]) -> str:
    return str(described["licence"]).partition(";")[0].removeprefix("weights: ").partition(",")[0]


if __name__ == "__main__":
    write_bytes(PAGE, with_table(PAGE.read_text("utf-8")).encode())
