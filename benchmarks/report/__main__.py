"""A benchmark run as one HTML page with charts, and as Markdown.

``python -m benchmarks.report RESULT.json [-o REPORT.html] [-o REPORT.md]``, and to compare two runs of one machine
``python -m benchmarks.report NEW.json --compare OLD.json`` (exit code 1 where a ratio got worse by more than noise).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .compare import changes, in_words
from .html_report import accuracies, html, markdown
from .results import read

ACCURACY = Path(__file__).resolve().parents[2] / "training" / "results" / "landmarks68.json"


def report(
    result: Annotated[Path, typer.Argument(help="what pytest --benchmark-json wrote")],
    output: Annotated[
        list[Path] | None, typer.Option("--output", "-o", help=".html or .md files; default: Markdown, to the terminal")
    ] = None,
    compare: Annotated[Path | None, typer.Option(help="an older result; exit code 1 where a ratio got worse")] = None,
) -> None:
    """Make the report of a benchmark run, or compare it with an older one."""
    run = read(result)
    if compare is not None:
        found = changes(read(compare), run)
        typer.echo(in_words(found), nl=False)
        raise typer.Exit(int(any(change.worse for change in found)))
    known = accuracies(run, ACCURACY)
    for path in output or []:
        if path.suffix not in (".html", ".md"):
            raise typer.BadParameter(f"a report is .html or .md, not {path.name}")
        path.write_text(html(run, known) if path.suffix == ".html" else markdown(run), "utf-8")
    if not output:
        typer.echo(markdown(run), nl=False)


if __name__ == "__main__":
    typer.run(report)
