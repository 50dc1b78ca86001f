"""What a study is, read from a TOML file: a recipe, runs that change a setting of it, and the claims they test.

The files of ``configs/studies`` come with the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from facelm_sdk.errors import InputError

from ..recipe import STUDIES, LandmarkRecipe, build, parse, read_toml

MOST_SEEDS = 10


@dataclass(frozen=True)
class Run:
    """A training of the study's recipe with the entries of ``set`` in the place of its own.

    A name with dots reaches into tables and lists: ``"stages.1.schedule.steps"``. ``printed``: what the paper prints of
    it, by table.
    """

    name: str
    set: Mapping[str, Any] = field(default_factory=dict)
    printed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """That one run is better than another: by a smaller error, or by fewer steps to the same error.

    ``table``: where the paper says so, one of the study's. ``score``: ``nme``, or ``nme_1`` after the first stage of a
    network of several. ``printed``: the paper's words where it prints no number of either.
    """

    table: str
    better: str
    worse: str
    kind: Literal["error", "steps"] = "error"
    score: str = "nme"
    printed: str = ""


@dataclass(frozen=True)
class Study:
    """``tables``: the paper's tables by name, and what their numbers are. ``report``: the data set of the scores.

    Its folder is below that of --data, as are those of the recipe, on whose held-out faces the best weights are chosen.
    ``seeds``: each run is trained once with each, in this order.
    """

    name: str
    title: str
    paper: str
    tables: Mapping[str, str]
    recipe: Mapping[str, Any]
    runs: tuple[Run, ...]
    claims: tuple[Claim, ...]
    report: str
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        names = [run.name for run in self.runs]
        if len(set(names)) < len(names) or not names:
            raise InputError(f"runs have names of their own, at least one: {', '.join(names)}")
        if not 1 <= len(set(self.seeds)) == len(self.seeds) <= MOST_SEEDS:
            raise InputError(f"seeds are 1 to {MOST_SEEDS} different numbers, not {list(self.seeds)}")
        known = set(self.tables)
        for run in self.runs:
            if unknown := sorted(set(run.printed) - known):
                raise InputError(f"run {run.name}: {unknown[0]} is none of the tables {', '.join(sorted(known))}")
        for claim in self.claims:
            if unknown := sorted({claim.better, claim.worse} - set(names)):
                raise InputError(f"a claim is of {unknown[0]!r}; runs: {', '.join(names)}")
            if claim.table not in known:
                raise InputError(f"a claim is of table {claim.table!r}; tables: {', '.join(sorted(known))}")
            pair = self.run(claim.better), self.run(claim.worse)
            if not claim.printed and any(claim.table not in run.printed for run in pair):
                raise InputError(f"the claim that {claim.better} is better than {claim.worse} has nothing printed")

    def run(self, name: str) -> Run:
        """The run of a name."""
        return next(run for run in self.runs if run.name == name)

    def recipe_of(self, run: Run, seed: int) -> LandmarkRecipe:
        """The recipe of a run. Raises InputError where it is not one of a landmark network trained on named data."""
        values = changed(self.recipe, run.set)
        recipe = parse(values, f"{self.name}, run {run.name}")
        if not isinstance(recipe, LandmarkRecipe) or not recipe.sources:
            raise InputError(f"{self.name}: a study trains a landmark network on sources of its own, or a mixture")
        return replace(recipe, seed=seed)


def changed(values: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's entries with others in their place. Raises InputError where a dotted name leads nowhere."""
    new = dict(_with_lists(values))
    for name, value in entries.items():
        *path, last = name.split(".")
        place: Any = new
        for step in path:
            place = _inside(place, step, name)
        _inside(place, last, name)
        place[int(last) if isinstance(place, list) else last] = _with_lists(value)
    return new


def _with_lists(value: Any) -> Any:
    """A copy of a TOML table with its lists as they were read."""
    if isinstance(value, Mapping):
        return {key: _with_lists(one) for key, one in value.items()}
    return [_with_lists(one) for one in value] if isinstance(value, list | tuple) else value


def _inside(place: Any, step: str, name: str) -> Any:
    if isinstance(place, dict):
        return place.setdefault(step, {})
    if isinstance(place, list) and step.isdecimal() and int(step) < len(place):
        return place[int(step)]
    raise InputError(f"set has {name!r}, but {step!r} leads nowhere in the recipe")


def names() -> list[str]:
    """The studies that come with the package."""
    return sorted(path.stem for path in STUDIES.glob("*.toml"))


def read(study: str) -> Study:
    """Read the study of a packaged name or a TOML file, and the recipe of each of its runs. Raises InputError."""
    path = STUDIES / f"{study}.toml"
    if not path.is_file():
        path = Path(study)
    if path.suffix != ".toml" or not path.is_file():
        raise InputError(f"{study!r} is neither a .toml file nor a packaged study; those are {', '.join(names())}")
    found = build(Study, read_toml(path) | {"name": path.stem}, path.name)
    for run in found.runs:
        found.recipe_of(run, found.seeds[0])
    return found
