"""The recipe that a run folder was trained by, kept in it: no folder mixes the weights of two recipes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facelm_sdk.errors import InputError
from facelm_sdk.files import expand_user, write_bytes

from .datasets import names
from .recipe import Recipe

FILE = "recipe.json"
WORDS = {"recipe.data", "recipe.summary", "recipe.floor", "recipe.evaluate_every"}
"""Entries that leave the weights as they are."""


SINCE = {"accumulate": 1, "correction": 0.0, "correction_of": "encoding"}
"""Entries that folders of older versions do not hold, and what those were trained by."""


@dataclass(frozen=True)
class Claim:
    """The right to train into a folder, which :meth:`take` enters into it."""

    out: Path
    record: Mapping[str, Any]
    reopened: Path | None = None

    def take(self) -> None:
        """Write what the folder is trained by; a finished stage that is to be prolonged is no longer done."""
        write_bytes(self.out / FILE, json.dumps(self.record, indent=1).encode())
        if self.reopened is not None:
            self.reopened.unlink()


def claim(
    out: Path, recipe: Recipe, data: str | Sequence[str], limit: int | None = None, *, changed: bool = False
) -> Claim:
    """Return the claim of a recipe, on ``data`` as told to --data, to a folder that is new or was trained by the same.

    Raises InputError where it was trained by another recipe, on other data or by none that it tells, saying each
    difference and what to do. ``changed``: it may differ in the words on the card, in how often it is evaluated, in the
    schedule (but for the optimiser) of the last stage that has begun, where this is done only with more steps or
    epochs, and in stages that have not begun.
    """
    place = " ".join(_place(one) for one in ([data] if isinstance(data, str) else data))
    record = json.loads(json.dumps({"recipe": asdict(recipe), "data": place, "limit": limit}))
    begun = sorted(path.parent.name for path in out.glob("*/last.pt"))
    if not begun:
        return Claim(out, record)
    if not (out / FILE).is_file():
        if changed:
            return Claim(out, record)
        raise InputError(
            f"{out} holds a run ({', '.join(begun)}) and does not tell its recipe: train into another --out, or go on "
            "with this recipe by --changed"
        )
    before = json.loads((out / FILE).read_text())
    old, new = flat(before), flat(record)
    old |= {key: SINCE[leaf] for key in new if key not in old and (leaf := key.rpartition(".")[2]) in SINCE}
    keys = [key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key)]
    if not keys:
        return Claim(out, record)
    told = "; ".join(f"{key.removeprefix('recipe.')} {_said(old, key)} -> {_said(new, key)}" for key in keys)
    if not changed:
        raise InputError(
            f"{out} was trained by another recipe: {told}. Train into another --out; --changed goes on there where "
            "only the schedule of the stage in progress has changed, or stages to come"
        )
    stages = before["recipe"].get("stages", [{"name": "train"}])
    last = max((i for i, stage in enumerate(stages) if stage["name"] in begun), default=-1)
    if refused := [key for key in keys if not _may_change(key, last)]:
        settled = ", ".join(key.removeprefix("recipe.") for key in refused)
        raise InputError(
            f"{out} cannot go on with another {settled}, which its weights come of ({told}): train into another --out"
        )
    done = out / stages[last]["name"] / "done.pt"
    if not done.is_file() or not any(_stage_of(key) == last for key in keys):
        return Claim(out, record)
    schedules = [_schedule(one["recipe"], last) for one in (before, record)]
    if not any(schedules[1][unit] > schedules[0][unit] for unit in ("steps", "epochs")):
        raise InputError(f"{out}: {stages[last]['name']} is done; it goes on with more steps or epochs only ({told})")
    return Claim(out, record, reopened=done)


def _place(data: str) -> str:
    head, colon, folder = data.partition(":")
    if colon and head.partition("/")[0] in names():
        return f"{head}:{expand_user(folder).resolve()}"
    return str(expand_user(data).resolve())


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return the entries of nested tables by their dotted names, such as ``recipe.stages[0].schedule.rate``."""
    if isinstance(value, dict):
        return {k: v for key, one in value.items() for k, v in flat(one, f"{name}.{key}" if name else key).items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {k: v for i, one in enumerate(value) for k, v in flat(one, f"{name}[{i}]").items()}
    return {name: value}


def _said(entries: Mapping[str, Any], key: str) -> str:
    return json.dumps(entries[key]) if key in entries else "(none)"


def _stage_of(key: str) -> int | None:
    """The stage that an entry is of; a detector's only schedule is that of stage 0."""
    if key.startswith("recipe.schedule."):
        return 0
    found = re.match(r"recipe\.stages\[(\d+)\]", key)
    return int(found[1]) if found else None


def _may_change(key: str, last: int) -> bool:
    """Whether a run can go on with another value of an entry, ``last`` being the last stage that has begun."""
    stage = _stage_of(key)
    if stage is None or stage < last:
        return key in WORDS
    return stage > last or (".schedule." in key and not key.endswith(".optimiser"))


def _schedule(recipe: Mapping[str, Any], stage: int) -> dict[str, Any]:
    schedule: dict[str, Any] = recipe["stages"][stage]["schedule"] if "stages" in recipe else recipe["schedule"]
    return schedule
