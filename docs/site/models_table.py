"""The table of the embedded models: ``python docs/site/models_table.py`` makes it anew in which-model.md.

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
    """The two tables, of landmark models and detectors, in Markdown."""
    run = read(RUN)
    landmarks, detectors = [LANDMARKS_HEAD], [DETECTORS_HEAD]
    for entry in sorted(zoo.list_models(), key=lambda entry: entry.name not in (zoo.LANDMARKS, zoo.DETECTOR)):
        facts = inspect_model(zoo.WEIGHTS / entry.file)
        if entry.task == "landmarks":
            landmarks.append(_landmarks(entry, facts, run))
        elif entry.task == "detection":
            detectors.append(_detector(entry, facts, run))
    return "\n".join([*landmarks, "", *detectors]) + "\n"


def with_table(text: str) -> str:
    """``text`` with the tables between their two markers made anew."""
    before, _, rest = text.partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    return f"{before}{MARKERS[0]}\n{table()}{MARKERS[1]}{after}"


def _landmarks(entry: zoo.ModelEntry, facts: dict[str, Any], run: Run) -> str:
    contract, card = facts["contract"], json.loads((ROOT / CARDS / f"{entry.name}.json").read_text("utf-8"))
    data = [card.get(name) for name in ("300w/test/common", "turned68/test")]
    errors = ["" if rows is None else f"{rows[entry.precision]['nme']:.2f}%" for rows in data]
    size = {"batch": 1, "backend": "onnxruntime", "precision": entry.precision}
    cells = (
        _name(entry),
        f"{contract['num_landmarks']} ({contract['markup']})",
        f"{contract['crop']['size']} px",
        entry.precision,
        _megabytes(facts),
        _ms(run, "landmarks", model=entry.name, **size),
        *errors,
        "yes" if contract.get("has_scores") else "no",
        _terms(contract),
    )
    return f"| {' | '.join(cells)} |"


def _detector(entry: zoo.ModelEntry, facts: dict[str, Any], run: Run) -> str:
    contract = facts["contract"]
    card = ROOT / CARDS / f"{entry.name}.json"  # the detector alone; an older one's contract has no other rows
    found = (
        json.loads(card.read_text("utf-8"))["frames/val"]["all"]
        if card.exists()
        else contract["accuracy"]["val frames"]
    )
    size = {"size": DETECTOR_SIZE, "backend": "onnxruntime", "precision": entry.precision}
    cells = (
        _name(entry),
        "5 (kps5)",
        _megabytes(facts),
        _ms(run, "detection", model=entry.name, **size),
        f"{found['recall']:.1f}% of {found['faces']}",
        str(found["false boxes"]),
        _terms(contract),
    )
    return f"| {' | '.join(cells)} |"


def _name(entry: zoo.ModelEntry) -> str:
    default = ", the default" if entry.name in (zoo.LANDMARKS, zoo.DETECTOR) else ""
    return f"[{entry.name}](../{CARDS}/{entry.name}.md){default}"


def _megabytes(facts: dict[str, Any]) -> str:
    return f"{facts['bytes'] / 1e6:.1f}"


def _ms(run: Run, test: str, **params: Any) -> str:
    entry = run.find(test, **params)
    return "" if entry is None else f"{entry.median:.1f}"


def _terms(contract: dict[str, Any]) -> str:
    return str(contract["licence"]).partition(";")[0].removeprefix("weights: ").partition(",")[0]


if __name__ == "__main__":
    write_bytes(PAGE, with_table(PAGE.read_text("utf-8")).encode())
