"""What 100 million pictures take, from the measured rates: ``python docs/site/big_jobs.py`` writes the table and the
picture of docs/big-jobs.md anew.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
RESULT = DOCS.parent / "benchmarks" / "results" / "big-jobs-epyc-zen4.json"
PAGE, PICTURE = DOCS / "big-jobs.md", DOCS / "big-jobs.svg"
TABLE = re.compile(r"(<!-- table: [^\n]+ -->\n)(.*?)(<!-- end of the table -->)", re.S)

PICTURES = 100_000_000
PRICE = 0.05  # dollars an hour of a core, as clouds ask for about
CORES = (2, 16, 64, 512)
KINDS = {"photos": "#0a6ebd", "photos_of_12_megapixels": "#cf222e"}
TIMES = {1: "1 hour", 10: "10 hours", 24: "a day", 168: "a week", 720: "30 days", 8760: "a year"}
WIDTH, HEIGHT, LEFT, TOP = 720, 400, 80, 30


def hours(measured: dict[str, float], cores: int = 1) -> float:
    """Hours of PICTURES on that many cores."""
    return PICTURES * measured["job_cpu_ms_a_picture"] / 1e3 / 3600 / cores


def spoken(time: float) -> str:
    """A time in hours as people say it."""
    return f"{time / 24:.1f} days" if time >= 48 else f"{time:.1f} h"


def table() -> str:
    """The table in Markdown."""
    result = json.loads(RESULT.read_text())
    lines = [
        f"| {PICTURES // 10**6} million | " + " | ".join(label(result[kind]) for kind in KINDS) + " |",
        "|---|" + "---|" * len(KINDS),
    ]

    def row(name: str, *values: str) -> None:
        lines.append(f"| {name} | {' | '.join(values)} |")

    kinds = [result[kind] for kind in KINDS]
    row("processor time a picture", *(f"{kind['job_cpu_ms_a_picture']:.1f} ms" for kind in kinds))
    row("pictures a second and core", *(f"{1e3 / kind['job_cpu_ms_a_picture']:.0f}" for kind in kinds))
    row("hours of a core", *(f"{hours(kind):,.0f}" for kind in kinds))
    for cores in CORES:
        row(f"on {cores} cores", *(spoken(hours(kind, cores)) for kind in kinds))
    row(f"at ${PRICE:.2f} an hour of a core", *(f"${hours(kind) * PRICE:,.0f}" for kind in kinds))
    row("to be read", *(f"{PICTURES * kind['file_kb'] / 1e9:,.1f} TB" for kind in kinds))
    row("`landmarks.parquet`, a face each", *(f"{PICTURES * kind['bytes_a_face'] / 1e9:,.0f} GB" for kind in kinds))
    row("memory of the run and of a worker", *(" and ".join(f"{mb} MB" for mb in kind[PEAK]) for kind in kinds))
    machine = result["machine"]
    lines.append("")
    lines.append(f"Measured on {machine['cpu']}: {machine['note']}.")
    return "\n".join(lines) + "\n"


PEAK = "peak_mb_of_run_and_worker"


def label(measured: dict[str, float]) -> str:
    """What the pictures of a column are."""
    faces = measured["faces"] / measured["pictures"]
    return f"JPEGs of {measured['megapixels']:.1f} megapixels, {faces:.1f} faces each"


def with_table(page: str) -> str:
    """The page with the table of the measured rates."""
    return TABLE.sub(lambda found: found[1] + table() + found[3], page)


def picture() -> str:
    """Hours by cores, both in powers of ten, as SVG."""
    result = json.loads(RESULT.read_text())
    right, bottom = WIDTH - 20, HEIGHT - 50
    low, high = 0.25, 10_000.0

    def x(cores: float) -> float:
        return LEFT + (right - LEFT) * math.log2(cores) / 10

    def y(time: float) -> float:
        return bottom - (bottom - TOP) * math.log10(time / low) / math.log10(high / low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for power in range(11):
        at = x(2**power)
        parts.append(f'<path d="M{at:.1f} {TOP}V{bottom}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{2**power}</text>')
    for time, name in TIMES.items():
        parts.append(f'<path d="M{LEFT} {y(time):.1f}H{right}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(time) + 4:.1f}" text-anchor="end">{name}</text>')
    for index, (kind, colour) in enumerate(KINDS.items()):
        start, end = y(hours(result[kind])), y(hours(result[kind], 1024))
        parts.append(f'<path d="M{x(1):.1f} {start:.1f}L{x(1024):.1f} {end:.1f}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{right - 8}" y="{TOP + 16 + 18 * index}" text-anchor="end" fill="{colour}">')
        parts.append(f"{label(result[kind])}</text>")
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">cores</text></svg>')
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
    PICTURE.write_text(picture())
