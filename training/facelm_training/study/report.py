"""A study's table and plot: the paper's effect, ours, whether it holds, and how sure that is."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facelm_sdk.errors import InputError

from ..figures import new_figure
from .definition import Claim, Run, Study
from .runner import Outcome

Outcomes = Mapping[str, Mapping[int, Outcome]]
"""Run -> seed -> what came of it."""

T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5th percentile of Student's t for 1 to 9 degrees of freedom."""


@dataclass(frozen=True)
class Effect:
    """What a claim came to.

    ``difference``: mean over the seeds of what the worse run has more, in percent of NME or, of steps, as the logarithm
    of the ratio; ``half``: half of its 95% interval, of the seeds' differences, infinite of one seed.
    ``holds``: yes, no (the reverse is sure), undecided, or of how many seeds it is if not of two. ``ours``: in words.
    """

    claim: Claim
    seeds: int
    difference: float
    half: float
    holds: str
    ours: str


def effect(claim: Claim, outcomes: Outcomes) -> Effect | None:
    """Return what the seeds that both runs are done with say of a claim; None without any."""
    better, worse = outcomes.get(claim.better, {}), outcomes.get(claim.worse, {})
    seeds = [seed for seed in better if seed in worse]
    if not seeds:
        return None
    both = ((claim.better, better), (claim.worse, worse))
    failed = [name for name, one in both if any(one[seed].diverged for seed in seeds)]
    if failed:
        holds = {claim.worse: "yes", claim.better: "no"}[failed[0]] if len(failed) == 1 else "undecided"
        return Effect(claim, len(seeds), math.nan, math.nan, holds, f"{' and '.join(failed)} diverged")
    if claim.kind == "steps":
        pairs = [_steps(better[seed].curve, worse[seed].curve) for seed in seeds]
        differences = [math.log(slow / fast) for fast, slow in pairs]
        words = f"{math.exp(float(np.mean(differences))):.2f} times the steps"
    else:
        pairs = [(_error(better[seed], claim.score), _error(worse[seed], claim.score)) for seed in seeds]
        differences = [slow - fast for fast, slow in pairs]
        words = " against ".join(f"{float(np.mean([pair[i] for pair in pairs])):.3f}" for i in (1, 0))
    mean, half = float(np.mean(differences)), _half(differences)
    return Effect(claim, len(seeds), mean, half, _verdict(mean, half, len(seeds)), words)


def _verdict(mean: float, half: float, seeds: int) -> str:
    if seeds == 1:
        return "one seed: " + ("so it was" if mean > 0 else "it was not")
    if abs(mean) <= half:
        return "undecided"
    return "yes" if mean > 0 else "no"


def _error(outcome: Outcome, score: str) -> float:
    return outcome.errors["nme" if score == "nme_1" and "nme_1" not in outcome.errors else score]  # of one stage


def _half(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.inf
    return float(T_95[len(values) - 2] * np.std(values, ddof=1) / math.sqrt(len(values)))


def _steps(fast: Sequence[tuple[float, float]], slow: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the steps of both curves to the smallest error that both reach."""
    level = max(min(error for _, error in curve) for curve in (fast, slow))
    return _first(fast, level), _first(slow, level)


def _first(curve: Sequence[tuple[float, float]], level: float) -> float:
    """Return the step at which the error is first at ``level``, on the line between two evaluations."""
    before: tuple[float, float] | None = None
    for step, error in curve:
        if error <= level:
            if before is None or error == before[1]:
                return step
            return before[0] + (step - before[0]) * (before[1] - level) / (before[1] - error)
        before = (step, error)
    raise ValueError(f"no error of the curve is as small as {level}")


def printed(claim: Claim, study: Study) -> str:
    """Return what the paper prints of a claim, the worse run first."""
    if claim.printed:
        return claim.printed
    worse, better = (study.run(name).printed[claim.table] for name in (claim.worse, claim.better))
    return f"{worse:g} against {better:g}"


def markdown(study: Study, outcomes: Outcomes, facts: Mapping[str, str]) -> str:
    """Return the study's page: what was done, a table of claims and one of runs."""
    lines = [f"# {study.title}", "", study.paper, ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += [f"- paper's table {name}: {unit}" for name, unit in study.tables.items()]
    lines += ["", "| claim | table | paper | ours | difference | seeds | holds |", "|---|---|---|---|---|---|---|"]
    for claim in study.claims:
        found = effect(claim, outcomes)
        cells = [_claimed(claim), claim.table, printed(claim, study), *_found(found)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", _legend(study), "", f"| run | {' | '.join(study.tables)} | NME, % | by seed |"]
    lines.append("|---|" + "---|" * (len(study.tables) + 2))
    for run in study.runs:
        theirs = [f"{run.printed[name]:g}" if name in run.printed else "" for name in study.tables]
        lines.append(f"| {run.name} | {' | '.join(theirs)} | {' | '.join(_ours(outcomes.get(run.name, {})))} |")
    return "\n".join(lines) + "\n"


def _claimed(claim: Claim) -> str:
    stage = f" (stage {claim.score.partition('_')[2]})" if "_" in claim.score else ""
    how = " needs fewer steps than " if claim.kind == "steps" else " is better than "
    return f"{claim.better}{how}{claim.worse}{stage}"


def _found(found: Effect | None) -> list[str]:
    if found is None:
        return ["", "", "0", "not run yet"]
    if math.isnan(found.difference):
        return [found.ours, "", str(found.seeds), found.holds]
    if found.claim.kind == "steps":
        low, high = (math.exp(found.difference + sign * found.half) if found.half < 5 else math.nan for sign in (-1, 1))
        shown = f"{math.exp(found.difference):.2f} ({low:.2f} to {high:.2f})"
    else:
        shown = f"{found.difference:+.3f} ± {found.half:.3f}"
    return [found.ours, shown.replace(" ± inf", "").replace(" (nan to nan)", ""), str(found.seeds), found.holds]


def _legend(study: Study) -> str:
    return (
        f"Ours is the NME in percent, of steps the ratio; the worse run first. The difference has its 95% interval by "
        f"the seeds, which are the same for both runs (Student's t; of {len(study.seeds)} at most); of one seed there "
        "is none. It holds (yes) or the reverse does (no) where the interval leaves 0 out."
    )


def _ours(by_seed: Mapping[int, Outcome]) -> tuple[str, str]:
    if not by_seed:
        return "", "not run yet"
    means = {seed: _error(one, "nme") for seed, one in by_seed.items() if not one.diverged}
    each = ", ".join(f"{means[seed]:.3f}" if seed in means else "diverged" for seed in by_seed)
    return (f"{float(np.mean(list(means.values()))):.3f}" if means else "diverged"), each


def result(study: Study, outcomes: Outcomes, facts: Mapping[str, str]) -> dict[str, Any]:
    """Return all that the page says, and the curves, as JSON has it."""
    claims = []
    for claim in study.claims:
        found = effect(claim, outcomes)
        entry: dict[str, Any] = {"claim": _claimed(claim), "table": claim.table, "paper": printed(claim, study)}
        if found is not None:
            numbers = {"difference": found.difference, "half_of_95%": found.half}
            entry |= {key: round(value, 5) if math.isfinite(value) else None for key, value in numbers.items()}
            entry |= {"ours": found.ours, "seeds": found.seeds, "holds": found.holds}
        claims.append(entry)
    return {
        "study": study.name,
        "title": study.title,
        "paper": study.paper,
        "tables": dict(study.tables),
        **facts,
        "claims": claims,
        "runs": [_run_of(study, run, outcomes.get(run.name, {})) for run in study.runs],
    }


def known(table: Path, study: Study, facts: Mapping[str, str]) -> dict[str, dict[int, Outcome]]:
    """Return what a :func:`result`'s file, if there is one, holds of the same recipes, by run (all of them) and seed.

    Raises InputError where it is of other faces, or no such file.
    """
    outcomes: dict[str, dict[int, Outcome]] = {run.name: {} for run in study.runs}
    if not table.is_file():
        return outcomes
    try:
        record = json.loads(table.read_text())
    except ValueError as error:
        raise InputError(
            f"{table} is no table of a study ({error}): move it away, or give another folder (--out)"
        ) from None
    for name, value in facts.items():
        if record.get(name) != value:
            raise InputError(
                f"{table} is of other faces ({name}: {record.get(name)}, not {value}) and would be lost: give another "
                "folder (--out)"
            )
    recipes = {run.name: _digest(study, run) for run in study.runs}
    for run in record["runs"]:
        if recipes.get(run["name"]) == run.get("recipe", ""):
            outcomes[run["name"]] = {int(seed): _outcome(one) for seed, one in run["seeds"].items()}
    return outcomes


def _outcome(entry: Mapping[str, Any]) -> Outcome:
    """What :func:`_run_of` wrote of a seed."""
    errors = {score: error for score, error in entry.items() if score.startswith("nme")}
    return Outcome(errors, [(step, error) for step, error in entry["curve"]], entry.get("diverged", ""))


def _digest(study: Study, run: Run) -> str:
    """What a run is trained and decoded by, whatever its seed and its words on the data, in few letters."""
    values = asdict(replace(study.recipe_of(run, 0), data="", summary="", floor=""))
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _run_of(study: Study, run: Run, by_seed: Mapping[int, Outcome]) -> dict[str, Any]:
    return {
        "name": run.name,
        "recipe": _digest(study, run),
        "set": dict(run.set),
        "printed": dict(run.printed),
        "seeds": {
            str(seed): {
                **one.errors,
                **({"diverged": one.diverged} if one.diverged else {}),
                "curve": one.curve,
            }
            for seed, one in by_seed.items()
        },
    }


def draw(study: Study, outcomes: Outcomes) -> Any:
    """Left the error on the held-out faces over the steps, mean of the seeds; right the reported error of each seed."""
    figure = new_figure(11, 0.35 * max(len(study.runs), 8) + 1.6)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for place, run in enumerate(study.runs):
        done = [one for one in outcomes.get(run.name, {}).values() if not one.diverged]
        colour = f"C{place % 10}"
        if curves := [one.curve for one in done if one.curve]:
            shortest = min(len(curve) for curve in curves)
            steps = [step for step, _ in curves[0][:shortest]]
            mean = np.mean([[error for _, error in curve[:shortest]] for curve in curves], 0)
            left.plot(steps, mean, color=colour, label=run.name)
        means = [_error(one, "nme") for one in done]
        right.plot(means, [place] * len(means), "o", color=colour, alpha=0.5, markersize=4)
        if means:
            right.plot([float(np.mean(means))], [place], "|", color=colour, markersize=16, markeredgewidth=2)
    left.set(xlabel="step", ylabel="NME on held-out faces, %", yscale="log")
    left.grid(alpha=0.3, which="both")
    left.legend(fontsize=7)
    right.set(xlabel=f"NME on {study.report.partition(':')[0]}, %, by seed", ylim=(len(study.runs) - 0.5, -0.5))
    right.set_yticks(range(len(study.runs)), [run.name for run in study.runs], fontsize=8)
    right.grid(alpha=0.3, axis="x")
    figure.suptitle(study.title, fontsize=10)
    return figure
