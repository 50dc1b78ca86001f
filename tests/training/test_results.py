"""Results of runs: what their folders say is what the table says."""

from __future__ import annotations

import csv
import json

import pytest

from facelm_models import complexity, create
from facelm_models.weights import save
from facelm_sdk.errors import InputError
from tools.results import main, read_run


def run(folder, name, stages, **options):
    model = create(name, **options)
    for stage, rows in stages.items():
        (folder / stage).mkdir(parents=True)
        with (folder / stage / "log.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", "minutes", "val_nme"])
            writer.writeheader()
            writer.writerows(dict(zip(("step", "minutes", "val_nme"), row, strict=True)) for row in rows)
    save(folder / f"{name}.safetensors", model, {"model": name})
    return model


def test_a_run_is_read(tmp_path):
    stages = {"one": [(10, 1.0, 9.0)], "two": [(5, 0.5, 8.0), (10, 1.5, 7.5)]}
    model = run(tmp_path / "mine", "lotr_m", stages, size=64, num_landmarks=29)
    found = read_run(tmp_path / "mine")
    assert (found["model"], found["size"], found["val_nme"], found["minutes"]) == ("lotr_m", 64, 7.5, 2.5)
    assert found["parameters"] == complexity.parameters(model)
    assert found["multiply_adds"] == complexity.multiply_adds(model, 64)["Global"]


def test_runs_side_by_side(tmp_path):
    run(tmp_path / "a", "lotr_m", {"full": [(10, 1.0, 6.25)]}, size=64)
    run(tmp_path / "b", "fan2", {"full": [(10, 1.0, 5.5), (20, 2.0, 4.75)]}, size=64, stacks=1, dim=32)
    main([tmp_path / "a", tmp_path / "b"], tmp_path / "out", "both")
    lines = (tmp_path / "out" / "both.md").read_text().splitlines()
    assert lines[2].startswith("| fan2 | 64 | 4.75 |") and lines[3].startswith("| lotr_m | 64 | 6.25 |")
    assert [one["model"] for one in json.loads((tmp_path / "out" / "both.json").read_text())] == ["fan2", "lotr_m"]
    assert (tmp_path / "out" / "both.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        read_run(tmp_path)
