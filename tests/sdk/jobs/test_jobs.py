"""Big jobs: what comes out, and how a job that was ended is gone on with."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from facelm_sdk import Aligner, cli, jobs, table
from facelm_sdk.cli import jobs as told
from facelm_sdk.errors import FacelmError, InputError, OutputError
from facelm_sdk.jobs import job, worker
from facelm_sdk.jobs.worker import Worker


@pytest.fixture
def in_process(monkeypatch):
    """Workers without a process of their own, for what has to do with none."""

    def run(self, part, told):
        import pickle

        number, failed = part.first, 0

        def step(at, so_far):
            nonlocal number, failed
            told(at - number, so_far - failed)
            number, failed = at, so_far

        pickle.loads(self._work).do(part, {}, step)

    monkeypatch.setattr(Worker, "run", run)


def test_a_job_has_the_rows_of_a_notebook(start, pictures, tmp_path, expected, same):
    out = tmp_path / "landmarks.parquet"
    printed = start([pictures], out, workers=2).end()
    found = pq.read_table(out)
    same(found, expected)
    assert printed.strip() == "Summary(pictures=60, faces=89, without_face=15, failed=1)"
    assert found["face"].null_count == 16 and [path.name for path in tmp_path.iterdir()] == [out.name]
    assert start([pictures], out).end() == printed  # whole already: nothing is done again


def test_killed_twenty_times_it_ends_with_every_picture_once(start, pictures, tmp_path, expected, same):
    out, parts = tmp_path / "landmarks.parquet", tmp_path / "landmarks.parquet.parts"
    moments, killed = random.Random(5), 0

    def done():
        return sum(1 for _ in parts.glob("*[0-9].parquet"))

    while killed < 20:
        wanted = done() + moments.choice([0, 0, 1, 2])
        run = start([pictures], out, workers=1)
        while done() < wanted and run.process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.choice([0.0, 0.01, 0.1, 0.5]) * moments.random())
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()
            killed += 1
            for path in parts.glob("*[0-9].parquet"):
                assert pq.read_metadata(path).num_row_groups == 1  # whole
        else:  # it came to its end: begin anew
            run.end()
            same(pq.read_table(out), expected)
            out.unlink()
    start([pictures], out, workers=1).end()
    same(pq.read_table(out), expected)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_process_that_dies_is_started_again(models, names, tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text(
        "import os, pathlib\n"
        "from facelm_sdk import Aligner\n"
        "class Deadly(Aligner):\n"
        "    def __call__(self, image, **options):\n"
        "        here = pathlib.Path(__file__).parent\n"
        "        if image.height == 13: os.kill(os.getpid(), 9)\n"
        "        if image.height == 14 and not (here / 'once').exists():\n"
        "            (here / 'once').touch(); os._exit(3)\n"
        "        return super().__call__(image, **options)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import cv2
    from deadly import Deadly

    for height, name in ((13, "deadly"), (14, "once")):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((height, 20, 3), np.uint8))
    steps = []
    sources = [names[0], tmp_path / "deadly.png", names[1], tmp_path / "once.png", names[2]]
    found = jobs.align(
        sources, tmp_path / "out.parquet", Deadly(*models, min_presence=0), workers=1, progress=steps.append
    )
    rows = {row["picture"]: row for row in pq.read_table(tmp_path / "out.parquet").to_pylist()}
    assert found.pictures == 5 and found.failed == 1 and sorted(rows) == [0, 1, 2, 3, 4]
    assert rows[1]["error"] == "the process that aligned it ended, 2 times: SIGKILL"
    assert steps[-1] == jobs.Progress(5, 5, 0, 1)


def test_a_process_that_cannot_start_ends_the_job(models, pictures, tmp_path, monkeypatch):
    aligner = Aligner(*(shutil.copy(model, tmp_path) for model in models), min_presence=0)
    options = {"workers": 2}
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(FacelmError, match="a worker's process cannot be started: exit code 1"):
        jobs.align(pictures, tmp_path / "out.parquet", aligner, **options)
    monkeypatch.undo()
    (tmp_path / "tiny.onnx").unlink()
    with pytest.raises((FacelmError, OSError), match=r"tiny\.onnx"):
        jobs.align(pictures, tmp_path / "out.parquet", aligner, **options)


def test_what_changes_the_results_is_no_same_job(aligner, models, pictures, tmp_path, in_process):
    out = tmp_path / "out.parquet"
    jobs.align(pictures, out, aligner)
    other = Aligner(*models, min_presence=0, max_faces=1)
    with pytest.raises(
        InputError, match=r"out.parquet is there, of a run with other options \(max_faces None, not 1\)"
    ):
        jobs.align(pictures, out, other)
    with pytest.raises(InputError, match=r"sources \[.*\], not \["):
        jobs.align([pictures, pictures], out, aligner)
    out.write_bytes(b"PAR1 something else")
    with pytest.raises(InputError, match="is there, and is no result of such a job: give another name"):
        jobs.align(pictures, out, aligner)


@pytest.mark.parametrize("after", [0, 3, 40])
def test_a_run_that_is_ended_is_gone_on_with(aligner, models, pictures, tmp_path, in_process, expected, same, after):
    out = tmp_path / "out.parquet"

    def stop(now):
        if now.done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.align(pictures, out, aligner, workers=1, progress=stop)
    assert not out.exists() and (tmp_path / "out.parquet.parts" / "plan.json").exists()
    with pytest.raises(InputError, match=r"out.parquet.parts is of a run with other options \(max_faces None, not 2\)"):
        jobs.align(pictures, out, Aligner(*models, min_presence=0, max_faces=2))
    (pictures / "0" / "new.png").write_bytes(b"a picture that came later is not of the job")
    try:
        steps = []
        found = jobs.align(pictures, out, aligner, workers=3, progress=steps.append)
    finally:
        (pictures / "0" / "new.png").unlink()
    before = steps[0].before  # whole parts, those at least that were whole when it was stopped
    assert before % 4 == 0 and after // 4 * 4 <= before
    assert found.pictures == steps[-1].done == 60
    assert all(one.done <= two.done for one, two in itertools.pairwise(steps))
    same(pq.read_table(out), expected)


def test_ended_between_the_last_steps_nothing_is_done_again(aligner, pictures, tmp_path, in_process, monkeypatch):
    out, parts = tmp_path / "out.parquet", tmp_path / "out.parquet.parts"
    with monkeypatch.context() as patch:
        patch.setattr(job, "_clear", lambda folder: None)
        found = jobs.align(pictures, out, aligner)
    changed = out.stat().st_mtime_ns
    assert parts.is_dir()
    assert jobs.align(pictures, out, aligner) == found
    assert out.stat().st_mtime_ns == changed and not parts.exists()


def test_a_damaged_part_is_told_of_and_done_again(aligner, pictures, tmp_path, in_process, monkeypatch, expected, same):
    out, part = tmp_path / "out.parquet", tmp_path / "out.parquet.parts" / "00000003.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(job.Job, "finish", lambda self: part.write_bytes(part.read_bytes()[:-99]))
        jobs.align(pictures, out, aligner)
    with pytest.raises(OutputError, match=r"00000003.parquet was damaged .*the same command does its pictures again"):
        jobs.align(pictures, out, aligner)
    assert not out.exists() and not part.exists()
    jobs.align(pictures, out, aligner)
    same(pq.read_table(out), expected)


def test_row_groups_are_whole_and_memory_holds_one(
    aligner, pictures, tmp_path, in_process, monkeypatch, expected, same
):
    monkeypatch.setattr(job, "ROW_GROUP", 50)
    out = tmp_path / "out.parquet"
    jobs.align(pictures, out, aligner)
    metadata = pq.read_metadata(out)
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert sizes == [50, 50, 5] and sum(sizes) == len(expected)
    same(pq.read_table(out), expected)


def test_pictures_in_a_parquet_file(aligner, names, tmp_path, in_process, expected, same):
    data = [open(name, "rb").read() for name in names]  # noqa: PTH123, SIM115
    pq.write_table(pa.table({"id": range(60), "image": data}), tmp_path / "data.parquet", row_group_size=11)
    jobs.align(tmp_path / "data.parquet", tmp_path / "out.parquet", aligner)
    found = pq.read_table(tmp_path / "out.parquet")
    same(found, expected, but=("source", "error"))
    assert found["source"][5].as_py() == f"{tmp_path}/data.parquet#{found['picture'][5].as_py()}"


def test_no_pictures_and_a_wrong_output_are_told_before_any_work(aligner, tmp_path, in_process):
    (tmp_path / "empty").mkdir()
    for sources, out, error, text in (
        (tmp_path / "empty", "a.parquet", InputError, "no pictures in"),
        (tmp_path / "missing", "a.parquet", InputError, "there is no"),
        (tmp_path / "empty", "a.csv", InputError, r"ends in \.parquet"),
        (tmp_path / "empty", "empty/x.parquet/y.parquet", InputError, "no pictures in"),
    ):
        with pytest.raises(error, match=text):
            jobs.align(sources, tmp_path / out, aligner)
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        jobs.align(tmp_path / "empty", tmp_path / "folder.parquet", aligner)
    for options in ({"engine": "spark"}, {"address": "auto"}, {"workers": 0}):
        with pytest.raises(InputError, match=next(iter(options))):
            jobs.align(tmp_path, tmp_path / "a.parquet", aligner, **options)


def invoke(*args):
    return CliRunner().invoke(cli.app, ["align", *map(str, args)])


def test_the_command(models, pictures, tmp_path, in_process, monkeypatch, expected, same):
    monkeypatch.setattr(told, "LINE_EVERY", 0.0)
    options = ["--model", models[0], "--detector", models[1], "--min-presence", "0"]
    out = tmp_path / "out.parquet"
    result = invoke(pictures, "--out", out, "--workers", 2, *options)
    assert result.exit_code == 1, result.output  # one picture is damaged
    lines = result.stderr.splitlines()
    assert re.search(r"\d+ of 60 pictures, [\d.]+ pictures/s, 0:\d\d:\d\d left", result.stderr)
    assert lines[-1].startswith(f"{out}: 60 pictures, 89 faces, 15 without a face, 1 failed; ")
    same(pq.read_table(out), expected)
    again = invoke(pictures, "--out", out, *options)
    assert again.exit_code == 1 and again.stderr.splitlines()[-1].endswith("1 failed; whole already")
    quiet = invoke(pictures, "--out", out, "-q", *options)
    assert quiet.output == ""
    for more, text in (
        (["--out", out, "--draw"], r"--draw: not with --out"),
        (["--out", out, "-o", tmp_path, "--format", "csv"], r"-o, --format: not with --out"),
        (["--engine", "ray", "--column", "x"], r"--column, --engine: only with --out"),
    ):
        result = invoke(pictures, *more)
        assert re.search(text, str(result.exception))


def test_what_a_killed_run_leaves_is_readable_by_people(aligner, pictures, tmp_path, in_process, names):
    def stop(now):
        if now.done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.align(pictures, tmp_path / "out.parquet", aligner, workers=1, progress=stop)
    parts = tmp_path / "out.parquet.parts"
    assert [json.loads(line) for line in (parts / "pictures.jsonl").read_text().splitlines()] == names
    assert pq.read_table(parts / "00000000.parquet").schema.equals(table.schema())
    assert worker.DEATHS == 2
