"""Two result files of one machine: which ratios got worse by more than noise.

Ratios within a comparison, not times, are compared: a slower day slows all sides of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import typer

from .results import Entry, Run

LEAST = 0.10
"""A ratio that changed by less than this part of it did not change: quiet runs differ by as much."""
DEVIATIONS = 3.0
"""Times the uncertainty of the four medians."""


@dataclass(frozen=True)
class Change:
    """The time of ``side`` in parts of its comparison's ``baseline``, then and now, and what noise may change of it."""

    group: str
    side: str
    baseline: str
    before: float
    after: float
    noise: float

    @property
    def worse(self) -> bool:
        return self.after / self.before > 1 + self.noise

    @property
    def better(self) -> bool:
        return self.before / self.after > 1 + self.noise


def changes(old: Run, new: Run) -> list[Change]:
    """Every side of every comparison that both have. Raises BadParameter for runs with other threads or CPUs."""
    for key in ("cpu", "threads"):
        if old.machine[key] != new.machine[key]:
            raise typer.BadParameter(
                f"the runs differ in {key} ({old.machine[key]}, {new.machine[key]}), so their ratios do not compare"
            )
    found = []
    before = old.groups()
    for group, entries in new.groups().items():
        known = {entry.side: entry for entry in before.get(group, [])}
        shared = [entry for entry in entries if entry.side in known]
        base = shared[0] if shared else None
        found += [_change(base, entry, known[base.side], known[entry.side]) for entry in shared[1:] if base is not None]
    return found


def _change(base: Entry, entry: Entry, old_base: Entry, old_entry: Entry) -> Change:
    spread = sum(one.noise**2 for one in (base, entry, old_base, old_entry)) ** 0.5
    return Change(
        entry.group,
        entry.side,
        base.side,
        old_entry.median / old_base.median,
        entry.median / base.median,
        max(LEAST, DEVIATIONS * spread),
    )


def in_words(found: list[Change]) -> str:
    """A line a change, the worst first, and a summary."""
    told = sorted((c for c in found if c.worse or c.better), key=lambda c: c.before / c.after)
    lines = [
        f"{'WORSE' if c.worse else 'better'}  {c.group}: {c.side} / {c.baseline} {c.before:.3g} -> {c.after:.3g} "
        f"({100 * (c.after / c.before - 1):+.0f}%, noise {100 * c.noise:.0f}%)"
        for c in told
    ]
    worse = sum(c.worse for c in found)
    lines.append(f"{len(found)} ratios compared: {worse} worse, {sum(c.better for c in found)} better")
    return "\n".join(lines) + "\n"
