"""pytest-benchmark's JSON to a Markdown table: medians, and how many times faster than PyTorch eager.

``python benchmarks/report.py RESULT.json [-o RESULT.md]``
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

BASELINE = "PyTorch eager"


def _milliseconds(seconds: float) -> str:
    """Three significant digits."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _cell(stats: dict[str, float]) -> str:
    median, q1, q3 = (_milliseconds(stats[key]) for key in ("median", "q1", "q3"))
    return f"{median} ({q1}-{q3})"


def _row(group: str, variants: dict[str, dict[str, float]]) -> str:
    """One group: what is timed against the baseline, where there is one."""
    (name, own), *_ = [item for item in variants.items() if item[0] != BASELINE] or list(variants.items())
    baseline = variants.get(BASELINE)
    cells = [group, name, _cell(own), "", ""]
    if baseline is not None and baseline is not own:
        cells[3:] = _cell(baseline), f"{baseline['median'] / own['median']:.2f}"
    return f"| {' | '.join(cells)} |"


def _common(benchmarks: list[dict[str, Any]], key: str) -> Any:
    """The circumstance all benchmarks share; a file put together from several runs has no such table."""
    values = [benchmark["extra_info"][key] for benchmark in benchmarks]
    if any(value != values[0] for value in values):
        raise typer.BadParameter(f"the benchmarks differ in {key}: they are not of one run")
    return values[0]


def markdown(result: dict[str, Any]) -> str:
    """The report of one run, from what ``--benchmark-json`` wrote."""
    benchmarks, machine = result["benchmarks"], result["machine_info"]
    if not benchmarks:
        raise typer.BadParameter("there are no benchmarks in this file")
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for benchmark in benchmarks:
        groups.setdefault(benchmark["group"], {})[benchmark["extra_info"]["variant"]] = benchmark["stats"]
    system = f"{_common(benchmarks, 'threads')} threads, {machine['system']} {machine['machine']}"
    versions = ", ".join(f"{name} {version}" for name, version in _common(benchmarks, "versions").items())
    weights = ", ".join(f"{name} {what}" for name, what in _common(benchmarks, "weights").items())
    rows = "\n".join(_row(group, variants) for group, variants in groups.items())
    return f"""# Benchmarks

- Machine: {_common(benchmarks, "cpu")}, {system}
- Versions: Python {machine["python_version"]}, {versions}
- Weights: {weights}
- When and how: {result["datetime"][:10]}, `{machine.get("command", "not recorded")}`

Median (quartiles) in milliseconds. The last column is how many times faster than PyTorch eager; below 1 is slower.

| what | by | ms | {BASELINE}, ms | times faster |
|---|---|---|---|---|
{rows}
"""


def report(
    result: Annotated[Path, typer.Argument(help="what pytest --benchmark-json wrote")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="a file; default: the terminal")] = None,
) -> None:
    """Make a Markdown table of a benchmark run."""
    text = markdown(json.loads(result.read_text("utf-8")))
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, "utf-8")


if __name__ == "__main__":
    typer.run(report)
