"""The plot of accuracy over time: ``python docs/site/accuracy_speed.py`` writes accuracy_speed.svg beside these pages.

Errors are those of the model's card and of training/results/peers.json, times those of one run of the benchmarks. Only
what has both is drawn.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from benchmarks.report import charts  # noqa: E402
from benchmarks.report.results import Run, read  # noqa: E402
from facelm_sdk import zoo  # noqa: E402
from facelm_sdk.files import write_bytes  # noqa: E402

RUN = "epyc-zen4-1thread"
PICTURE = DOCS / "accuracy_speed.svg"
SOURCE = (
    f"Errors: 554 faces of 300-W's common test set, {zoo.LANDMARKS}'s card and training/results/peers.json.",
    f"Times: one thread of a Zen 4, medians of one run, benchmarks/results/{RUN}.json.",
)
STYLE = (
    "<style>text{font:12px sans-serif;fill:#24292f}.axis{stroke:#57606a}.grid{stroke:#eaeef2}"
    ".source{font-size:10.5px;fill:#57606a}</style>"
)


def measured() -> dict[str, list[tuple[float, float, str]]]:
    """By who it is: milliseconds of a picture, error in percent, and a label."""
    run = read(ROOT / "benchmarks/results" / f"{RUN}.json")
    card = _json(f"models/weights/facelm_weights/{zoo.LANDMARKS}.json")["300w/test/common"]
    peers = _json("training/results/peers.json")

    def ours(row: str, label: str, test: str, **params: Any) -> tuple[float, float, str]:
        return (_median(run, test, **params), card[row]["nme"], label)

    return {
        "facelm Aligner": [
            ours("int8, Aligner", "int8, as it comes", "static", who="facelm"),
            ours("int8, flip averaging", "flip averaging", "aligner_flip", flip=True),
            ours("fp32, Aligner", "fp32", "aligner", faces="1face", backend="onnxruntime"),
        ],
        "the same, PyTorch eager": [
            ours("fp32, Aligner", "PyTorch", "aligner", faces="1face", backend="eager"),
        ],
        "MediaPipe FaceMesh": [
            (_median(run, "static", who="mediapipe_static"), peers["facemesh"]["nme"], "FaceMesh"),
        ],
    }


def picture() -> str:
    """The plot as SVG text."""
    x = "milliseconds from a 640x480 picture with one face to its points, detection included"
    svg = charts.points(measured(), x, "error, % of the eye distance")
    height = charts.HEIGHT + 18 + 14 * len(SOURCE)
    lines = "".join(
        f'<text class="source" x="{charts.LEFT}" y="{charts.HEIGHT + 16 + 14 * index}">{line}</text>'
        for index, line in enumerate(SOURCE)
    )
    ground = f'<rect width="{charts.WIDTH}" height="{height}" fill="white"/>'
    svg = svg.replace(f"0 0 {charts.WIDTH} {charts.HEIGHT}", f"0 0 {charts.WIDTH} {height}")
    start = svg.index(">") + 1
    return f"{svg[:start]}{STYLE}{ground}{svg[start : -len('</svg>')]}{lines}</svg>\n"


def _median(run: Run, test: str, **params: Any) -> float:
    entry = run.find(test, **params)
    if entry is None:
        sys.exit(f"{RUN} has no {test} of {params}")
    return entry.median


def _json(path: str) -> Any:
    return json.loads((ROOT / path).read_text("utf-8"))


if __name__ == "__main__":
    write_bytes(PICTURE, picture().encode())
