"""The papers' recipes against the table of their settings: an edit of one that the other does not know is seen."""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import asdict

import pytest

from facelm_training import datasets
from facelm_training import recipe as recipes
from facelm_training.recipe import CONFIGS, names
from facelm_training.run_folder import flat

read = functools.cache(recipes.read)
NO_SETTINGS = {"data", "summary", "floor", "evaluate_every", "seed", "name"}
"""Words, and what the network does not learn by."""
USUAL = {"train": "train", "start": "", "held_out": "", "sources": [], "network": "full", "schedule.steps": 0}
USUAL |= {"augmentation.cover": 0.0}
WITHOUT_DROPS = {"schedule.decay", "schedule.final_rate"}
PAPERS = sorted(name.partition("/")[2] for name in names() if name.startswith("papers/"))
PRINTED = ("section", "eq.", "appendix", "not printed", "ours", "none", "public code", "of another paper")


def tables() -> dict[str, dict[str, tuple[object, str]]]:
    """The value of each entry of each recipe, and where it is printed."""
    found: dict[str, dict[str, tuple[object, str]]] = {}
    of: list[str] = []
    for line in (CONFIGS / "papers" / "SETTINGS.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            of = line.partition(": ")[2].split(", ")
        if not line.startswith("| ") or line.startswith("| entry"):
            continue
        entry, value, where = (cell.strip() for cell in line.strip("|").split("|"))
        one, colon, own = entry.partition(": ")
        for recipe in [one] if colon else of:
            assert recipe in of, line
            before = found.setdefault(recipe, {}).setdefault(own if colon else entry, (json.loads(value), where))
            assert before == (json.loads(value), where), line
    return found


TABLES = tables()


def settings(name: str) -> dict[str, object]:
    """What a recipe sets, its only stage without ``stages[0]``."""
    recipe = read(f"papers/{name}")
    assert len(recipe.stages) == 1
    entries = flat(json.loads(json.dumps(asdict(recipe))))
    values = {key.removeprefix("stages[0]."): value for key, value in entries.items()}
    assert values["schedule.drops"] and {key: values.pop(key) for key in USUAL if key in values} == USUAL
    values.pop("val" if values["held_out_part"] else "held_out_part")
    dropped = NO_SETTINGS | WITHOUT_DROPS
    if values["weights"] is None:  # the stage's own, which a full network has not
        dropped |= {"weights"}
    if values["decoding"] is None:  # the model's own
        dropped |= {"decoding"}
    return {
        key: value for key, value in values.items() if key not in dropped and not key.startswith("confidence.")
    }  # of stages that no paper has


def test_every_recipe_has_a_table():
    assert sorted(TABLES) == PAPERS


@pytest.mark.parametrize("name", PAPERS)
def test_recipe_and_table_agree(name):
    assert settings(name) == {entry: value for entry, (value, _) in TABLES[name].items()}


def test_every_setting_says_where_it_is_printed():
    for name, table in TABLES.items():
        for entry, (_, where) in table.items():
            assert any(word in where for word in PRINTED), f"{name}: {entry}"


@pytest.mark.parametrize("name", PAPERS)
def test_nothing_is_chosen_on_a_test_set(name):
    recipe = read(f"papers/{name}")
    reported = {info.default for info in datasets.READERS.values() if info.markup == recipe.markup}
    assert recipe.held_out_part or recipe.val not in reported | {"test"}


@pytest.mark.parametrize("name", PAPERS)
def test_the_head_says_what_differs(name):
    lines = (CONFIGS / "papers" / f"{name}.toml").read_text("utf-8").splitlines()
    head = " ".join(line.removeprefix("#").strip() for line in itertools.takewhile(lambda x: x.startswith("#"), lines))
    for words in ("no gradient clipping", "no weight decay", "fp32", "annotated", "SETTINGS.md"):
        assert words in head, words
