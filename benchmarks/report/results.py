"""Result files of a run, as their benchmarks with what they are compared with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from .format import FORMAT


@dataclass(frozen=True)
class Entry:
    """One benchmark. ``test`` is its function, ``params`` its parameters, ``axes`` those its comparison differs in."""

    test: str
    group: str
    params: dict[str, Any]
    axes: tuple[str, ...]
    stats: dict[str, float]
    info: dict[str, Any]

    @property
    def median(self) -> float:
        """Milliseconds."""
        return 1000 * self.stats["median"]

    @property
    def side(self) -> str:
        """What it is in its comparison, such as "onnxruntime int8"."""
        return " ".join(_text(axis, self.params[axis]) for axis in self.axes)

    @property
    def noise(self) -> float:
        """How uncertain the median is, as a part of it: half the distance of the quartiles by the root of the runs."""
        spread = self.stats["q3"] - self.stats["q1"]
        return float(spread / 2 / self.stats["median"] / max(1.0, self.stats["rounds"]) ** 0.5)


@dataclass(frozen=True)
class Run:
    """All of one result file."""

    machine: dict[str, Any]
    python: str
    date: str
    entries: list[Entry]
    not_run: list[dict[str, Any]]

    def groups(self) -> dict[str, list[Entry]]:
        """Comparisons by their names; the first entry of each is what the others are compared with."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.group, []).append(entry)
        return found

    def find(self, test: str, **params: Any) -> Entry | None:
        """The benchmark of a test with these parameters."""
        return next(
            (e for e in self.entries if e.test == test and all(e.params.get(k) == v for k, v in params.items())), None
        )

    def models(self, test: str) -> list[str]:
        """The models that a test ran with."""
        return list(dict.fromkeys(entry.params["model"] for entry in self.entries if entry.test == test))


def read(path: Path) -> Run:
    """A result file of this format. Raises BadParameter for another."""
    try:
        result = json.loads(path.read_text("utf-8"))
        machine = result["machine_info"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise typer.BadParameter(f"{path} is not a file of pytest --benchmark-json ({error})") from error
    return run_of(result, machine, str(path))


def run_of(result: dict[str, Any], machine: dict[str, Any], name: str) -> Run:
    """What a result file holds."""
    if not result.get("benchmarks"):
        raise typer.BadParameter(f"there are no benchmarks in {name}")
    found = machine.get("facelm", {}).get("format", 1)
    if found != FORMAT:
        raise typer.BadParameter(
            f"{name} is of format {found}, this report reads {FORMAT}: its benchmarks were timed one after the other, "
            f"without turns and parameters; run pytest benchmarks/ --benchmark-only --benchmark-json=FILE anew"
        )
    entries = [
        Entry(
            test=entry["name"].partition("[")[0].removeprefix("test_"),
            group=entry["group"],
            params=entry["params"] or {},
            axes=tuple(entry["extra_info"]["axes"]),
            stats=entry["stats"],
            info=entry["extra_info"],
        )
        for entry in result["benchmarks"]
    ]
    return Run(machine["facelm"], machine["python_version"], result["datetime"][:10], entries, result["not_run"])


def milliseconds(value: float) -> str:
    """Three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _text(axis: str, value: Any) -> str:
    return f"{axis}={value}" if isinstance(value, (bool, int)) else str(value)
