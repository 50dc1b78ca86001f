"""The facelm command."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from facelm_sdk import Face, cli
from facelm_sdk.cli import doctor as doctoring
from facelm_sdk.cli import formats, plugins
from facelm_sdk.errors import ImageError, InputError, MissingDependencyError, OutputError
from facelm_sdk.images import picture as pictures
from facelm_sdk.images.header import SUFFIXES
from facelm_sdk.images.read import read_image
from facelm_sdk.interop import coco, json_schema, pts, table


@pytest.fixture
def models(landmark_model, detector_model):
    return ["--model", str(landmark_model()), "--detector", str(detector_model())]


@pytest.fixture
def folder(tmp_path, scene):
    """Two faces, one face, none, and a text file named .jpg; two of them of one stem."""
    source = tmp_path / "pictures"
    (source / "more").mkdir(parents=True)
    cv2.imwrite(str(source / "a.png"), scene(640, 480, (50, 50, 250, 260), (400, 100, 600, 300)))
    cv2.imwrite(str(source / "a.jpg"), scene(640, 480, (50, 50, 250, 260)))
    cv2.imwrite(str(source / "more" / "a.png"), np.zeros((40, 40, 3), np.uint8))
    (source / "broken.jpg").write_text("not a picture")
    (source / "notes.txt").write_text("not even named like one")
    return source


def run_process(*args, **options):
    """The command as a process of its own."""
    command = [sys.executable, "-m", "facelm_sdk", *map(str, args)]
    return subprocess.run(command, check=False, stderr=subprocess.PIPE, timeout=120, **options)


def invoke(*args):
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_folder_run(folder, models, tmp_path):
    out = tmp_path / "out"
    result = invoke("align", folder, "-o", out, "--draw", "--crops", 112, *models)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{folder / 'broken.jpg'}: not a picture, or its header is damaged; accepted are ")
    assert result.stderr.count("broken.jpg") == 1
    assert "1 of 4 pictures failed" in result.stderr
    assert [line.partition(": ")[2][:8] for line in result.stdout.splitlines()] == [
        "face 1/1",
        "face 1/2",
        "face 2/2",
        "no face",
    ]
    assert files(out) == [
        *("a.jpg", "a.json", "a_2.jpg", "a_2.json"),
        *("crops/a_0.png", "crops/a_2_0.png", "crops/a_2_1.png"),
        *("more/a.jpg", "more/a.json"),
    ]
    record = json.loads((out / "a_2.json").read_text())
    assert record["source"].endswith("a.png") and (record["width"], record["height"]) == (640, 480)
    assert len(record["faces"]) == 2 and len(record["faces"][0]["landmarks"]) == 68
    assert record["model"] == "tiny" and record["detector"] == "bright"
    assert cv2.imread(str(out / "crops" / "a_0.png")).shape == (112, 112, 3)


def test_draw_takes_pose_or_nothing(tmp_path):
    """A bare --draw may stand before a picture, which is not its value."""
    portrait = Path(__file__).resolve().parents[2] / "examples" / "pictures" / "hopper.jpg"
    drawn = {}
    for name, words in {"bare": ["--draw"], "pose": ["--draw", "pose"], "none": ["--no-draw"]}.items():
        result = invoke("align", *words, portrait, "-o", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        drawn[name] = files(tmp_path / name)
    both = ["hopper.jpg", "hopper.json"]
    assert drawn == {"bare": both, "pose": both, "none": ["hopper.json"]}
    bare, pose = (cv2.imread(str(tmp_path / name / "hopper.jpg")).astype(int) for name in ("bare", "pose"))
    assert (abs(bare - pose) > 60).any()
    assert "yaw" in result.stdout and "pitch" in result.stdout
    assert invoke("align", "--draw=bad", portrait, "-o", tmp_path).exit_code == 2


def test_all_well_is_exit_code_0(folder, models, tmp_path):
    result = invoke("align", folder / "a.png", folder / "more", "-o", tmp_path / "out", "--quiet", *models)
    assert result.exit_code == 0 and result.stdout == ""
    assert files(tmp_path / "out") == ["a.json", "a_2.json"]


def test_globs_and_missing_files(folder, models):
    result = invoke("align", folder / "*.png", folder / "none*.png", folder / "gone.jpg", *models)
    assert result.exit_code == 1
    assert result.stdout.count("face ") == 2
    assert result.stderr.splitlines()[:2] == [
        f"no file matches {folder / 'none*.png'}",
        f"cannot read {folder / 'gone.jpg'}: No such file or directory",
    ]


def test_addresses_keep_their_slashes(folder, models):
    result = invoke("align", "https://host.org//a.jpg", folder / "a.jpg", *models)
    assert result.exit_code == 1 and result.stdout.count("face ") == 1
    assert result.stderr.splitlines()[0] == (
        "https://host.org//a.jpg is an address; pictures are read from files: download it first"
    )
    with pytest.raises(ImageError, match=r"^https://host\.org/a\.jpg is an address"):
        read_image("https://host.org/a.jpg")


def test_a_folder_without_pictures_says_what_is_there(tmp_path, models):
    (tmp_path / "a.svg").touch()
    (tmp_path / "Makefile").touch()
    error = invoke("align", tmp_path, *models).exception
    assert isinstance(error, InputError)
    there = "the files there end in .svg, no suffix"
    assert str(error) == f"no pictures in {tmp_path}: {there}; accepted are {', '.join(SUFFIXES)}"
    (tmp_path / "none").mkdir()
    assert "no file is there" in str(invoke("align", tmp_path / "none", *models).exception)


@pytest.mark.parametrize("suffix", [".avif", ".gif", ".heic"])
def test_new_formats_are_found_in_folders(tmp_path, models, scene, suffix):
    picture = Image.fromarray(scene(640, 480, (50, 50, 250, 260))[..., ::-1])
    path = tmp_path / f"a{suffix}"
    if suffix == ".heic":
        pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
        pillow_heif.from_pillow(picture).save(path)
    else:
        picture.save(path)
    result = invoke("align", tmp_path, *models)
    assert (result.exit_code, result.stderr) == (0, "") and "face 1/1" in result.stdout


def test_json_lines(folder, models, tmp_path):
    lines = tmp_path / "all.jsonl"
    result = invoke("align", folder / "a.png", folder / "a.jpg", "--json-lines", lines, *models)
    assert result.exit_code == 0 and "face 1/2" in result.stdout
    assert [len(json.loads(line)["faces"]) for line in lines.read_text().splitlines()] == [2, 1]
    result = invoke("align", folder / "a.png", folder / "a.jpg", "--json-lines", "-", *models)
    assert [len(json.loads(line)["faces"]) for line in result.stdout.splitlines()] == [2, 1]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "coco", "pts", "json"])
def test_formats(folder, models, tmp_path, kind):
    """Each format says of the same pictures the same faces as the default does."""
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    sources = [folder / "a.png", folder / "a.jpg", folder / "more"]
    assert invoke("align", *sources, "-o", tmp_path / "plain", *models).exit_code == 0
    assert invoke("align", *sources, "-o", tmp_path / "out", "--format", kind, *models).exit_code == 0
    plain = [json.loads((tmp_path / "plain" / name).read_text()) for name in ("a.json", "a_2.json", "a_3.json")]
    wanted = {one["source"]: [Face.from_dict(face) for face in one["faces"]] for one in plain}
    out = tmp_path / "out"
    name = {"coco": "coco.json"}.get(kind, f"faces.{kind}")
    assert files(out) == {
        "pts": ["a_0.pts", "a_1.pts", "a_2_0.pts"],
        "json": ["a.json", "a_2.json", "a_3.json"],
    }.get(kind, [name])
    if kind == "json":
        return
    found = {source: [] for source in wanted}
    if kind == "jsonl":
        for line in (out / name).read_text().splitlines():
            record = json.loads(line)
            pytest.importorskip("jsonschema").validate(record, json_schema())
            found[record["source"]] = [Face.from_dict(face) for face in record["faces"]]
    elif kind == "coco":
        found = coco.from_coco(json.loads((out / name).read_text()))
    elif kind == "pts":
        found[str(folder / "a.png")] = [pts.read_pts(out / "a_0.pts"), pts.read_pts(out / "a_1.pts")]
        found[str(folder / "a.jpg")] = [pts.read_pts(out / "a_2_0.pts")]
    else:
        if kind == "csv":
            rows = list(csv.DictReader((out / name).open(newline="")))
        else:
            rows = pytest.importorskip("pyarrow.parquet").read_table(out / name).to_pylist()
        for row in rows:
            assert int(row["face"]) == len(found[row["source"]]) and int(row["width"]) == 640
            found[row["source"]].append(table.from_row(row))
    assert found.keys() == wanted.keys() and [len(faces) for faces in found.values()] == [2, 1, 0]
    for source, faces in wanted.items():
        for one, other in zip(found[source], faces, strict=True):
            np.testing.assert_allclose(one.landmarks, other.landmarks, atol=2e-3)
            if kind != "pts":
                np.testing.assert_allclose(one.bbox, other.bbox, atol=2e-3)
                assert one.score == other.score


def test_results_in_any_format_are_no_inputs(folder, models):
    for kind in ("jsonl", "csv", "coco", "pts"):
        assert invoke("align", folder / "a.png", "-o", folder / "out", "--format", kind, *models).exit_code == 0
    (folder / "out" / "mine.png").write_bytes((folder / "a.png").read_bytes())
    result = invoke("align", folder / "out" / "*", "-o", folder / "out", *models)
    assert result.exit_code == 0 and "5 files left out" in result.stderr, result.stderr
    assert result.stdout.count("face 1/2") == 1


def test_a_format_needs_a_folder_and_its_package(folder, models, tmp_path, monkeypatch):
    assert "--format needs a folder" in str(invoke("align", folder, "--format", "csv", *models).exception)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    result = invoke("align", folder, "-o", tmp_path / "out", "--format", "parquet", *models)
    assert 'pip install "facelm-sdk[parquet]"' in str(result.exception) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["csv", "parquet", "coco"])
def test_an_interrupted_table_keeps_what_was_found(kind, tmp_path):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    face = Face.of_landmarks([[0, 0], [4, 0], [2, 2], [1, 4], [3, 4]], "kps5")
    record = {"source": "a.jpg", "width": 9, "height": 8, "model": "m", "detector": None, "faces": [face.to_dict()]}
    path = tmp_path / "out"
    with (
        pytest.raises(KeyboardInterrupt),
        formats.open_results(formats.Format(kind), path, "kps5", scores=False) as file,
    ):
        file.add(record, [face])
        raise KeyboardInterrupt
    assert path.is_file() and b"a.jpg" in path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_inputs_are_never_overwritten(folder, models):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    invoke("align", folder, "-o", folder, "--draw", *models)
    assert all(path.read_bytes() == data for path, data in before.items())
    assert "a_faces.jpg" in files(folder)


def test_results_of_an_earlier_run_are_not_inputs(folder, models):
    out = folder / "out"
    invoke("align", folder, "-o", out, "--draw", *models)
    first = files(out)
    invoke("align", folder, "-o", out, "--draw", *models)
    assert files(out) == first
    assert not [name for name in first if name.endswith(".tmp")]


def test_repeated_into_the_folder_itself(folder, models):
    for suffix in ("", "/*", "/**/*.png"):
        after = []
        for _ in range(3):
            result = invoke("align", f"{folder}{suffix}", "-o", folder, "--draw", "--crops", 112, *models)
            after.append(files(folder))
        assert after[0] == after[1] == after[2]
    assert f"files left out, of an earlier run in {folder}" in result.stderr
    results = invoke("align", folder / "crops", *models)  # into no folder: whatever one wants of them
    assert "left out" not in results.stderr and results.stdout.count("crops") >= 3
    only = invoke("align", folder / "a_faces.jpg", "-o", folder, *models)
    assert "no pictures in" in str(only.exception) and "but results of an earlier run" in str(only.exception)


@pytest.mark.parametrize("names", [("p.jpg", "p_faces.png"), ("p_faces.jpg", "p.png"), ("p.png", "P.jpg")])
def test_no_two_pictures_have_one_result(tmp_path, models, scene, names):
    boxes = [(50, 50, 250, 260), (400, 100, 600, 300)]
    for number, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), scene(640, 480, *boxes[: number + 1]))
    for _ in range(2):
        before = {name: (tmp_path / name).read_bytes() for name in names}
        assert invoke("align", tmp_path, "-o", tmp_path, "--draw", *models).exit_code == 0
        assert {name: (tmp_path / name).read_bytes() for name in names} == before
        drawn = [name for name in files(tmp_path) if not name.endswith(".json") and name not in names]
        assert len(drawn) == 2
        records = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
        assert sorted(len(record["faces"]) for record in records) == [1, 2]


def test_no_output_is_an_input(folder, models, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    model = Path(models[1]).read_bytes()
    (tmp_path / "link.jsonl").symlink_to(folder / "a.jpg")
    for lines in (folder / "a.jpg", tmp_path / "link.jsonl", models[1]):
        result = invoke("align", folder, "--json-lines", lines, *models)
        assert isinstance(result.exception, InputError) and "written over what is read" in str(result.exception)
    assert isinstance(invoke("align", folder, "--json-lines", tmp_path, *models).exception, OutputError)
    assert isinstance(invoke("align", folder, "-o", folder / "a.jpg", *models).exception, OutputError)
    shutil.copy(folder / "a.jpg", tmp_path / "picture.json")
    assert invoke("align", tmp_path / "picture.json", "-o", tmp_path, *models).exit_code == 0
    assert (tmp_path / "picture.json").read_bytes() == (folder / "a.jpg").read_bytes()
    assert len(json.loads((tmp_path / "picture_faces.json").read_text())["faces"]) == 1
    links = tmp_path / "links"
    links.mkdir()
    (links / "a.jpg").symlink_to(folder / "a.jpg")
    assert invoke("align", folder / "a.jpg", "-o", links, "--draw", *models).exit_code == 0
    assert files(links) == ["a.jpg", "a.json", "a_faces.jpg"]
    assert {path: path.read_bytes() for path in before} == before and Path(models[1]).read_bytes() == model


def test_a_bad_entry_never_ends_a_run(folder, models, tmp_path):
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (folder / "nowhere.jpg").symlink_to("gone.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / ("n" * 246 + ".jpg")).symlink_to("a.jpg")
    result = invoke("align", folder, "-o", tmp_path / "out", "--json-lines", tmp_path / "all.jsonl", *models)
    assert result.exit_code == 1 and "3 of 6 pictures failed" in result.stderr
    assert "nowhere.jpg: No such file or directory" in result.stderr
    assert "circle.jpg: Too many levels of symbolic links" in result.stderr
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 3
    result = invoke("align", folder / "*.jpg", folder / "pipe.jpg", *models)
    assert "pipe.jpg: it is a pipe that nobody writes into" in result.stderr and result.stdout.count("face 1/1") == 1
    result = invoke("align", os.devnull, "", *models)
    assert isinstance(result.exception, InputError) and "an empty name is no picture" in str(result.exception)
    result = invoke("align", os.devnull, "n" * 300, "~nobody-of-this-name/a.jpg", *models)
    assert "a device, not a file" in result.stderr and "3 of 3 pictures failed" in result.stderr


def test_names_that_are_not_utf8(folder, models, tmp_path):
    name = os.fsencode(folder) + b"/b\xff.jpg"
    try:
        shutil.copy(folder / "a.jpg", name)
    except OSError:
        pytest.skip("this file system has Unicode names only")
    (folder / "broken.jpg").rename(os.fsdecode(os.fsencode(folder) + b"/c\xfe.jpg"))
    lines = tmp_path / "all.jsonl"
    command = ["align", folder, "-o", tmp_path / "out", *models]
    for options in (["--draw"], ["--json-lines", lines], ["--json-lines", "-"]):
        result = run_process(*command, *options, stdout=subprocess.PIPE)
        assert result.returncode == 1 and b"/c\\xfe.jpg: not a picture" in result.stderr, result.stderr
        assert b"Traceback" not in result.stderr
    assert (tmp_path / "out" / os.fsdecode(b"b\xff.jpg")).is_file()
    for text in (lines.read_bytes(), result.stdout, (tmp_path / "out" / os.fsdecode(b"b\xff.json")).read_bytes()):
        assert "b\\\\xff.jpg" in text.decode("utf-8")
    assert any(json.loads(line)["source"].endswith(r"b\xff.jpg") for line in lines.read_text().splitlines())


@pytest.mark.parametrize("error", [MemoryError(), MemoryError("9 GiB"), cv2.error("resize failed")])
def test_a_picture_too_large_is_its_own_error(folder, models, monkeypatch, error):
    decode = pictures.decode

    def fail(data, what, *rest):
        if what.endswith("a.jpg"):
            raise error
        return decode(data, what, *rest)

    monkeypatch.setattr(pictures, "decode", fail)
    result = invoke("align", folder / "a.jpg", folder / "a.png", *models)
    assert result.exit_code == 1 and result.stdout.count("face ") == 2
    assert "1 of 2 pictures failed" in result.stderr
    assert ("resize failed" if isinstance(error, cv2.error) else "too large for the memory") in result.stderr


def test_sizes_are_refused_before_any_work(folder, models, tmp_path):
    for options in (["--crops", 4097], ["--crops", 10**9], ["--det-size", 4097], ["--det-size", "64x99999"]):
        assert isinstance(invoke("align", folder, "-o", tmp_path / "out", *options, *models).exception, InputError)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_what_was_found_is_kept_when_a_run_is_cut_short(folder, models, tmp_path, number, code):
    """The signal comes while the last input, a pipe, is waited for."""
    lines, end = tmp_path / "all.jsonl", tmp_path / "last.jpg"
    lines.write_text("old\n")
    os.mkfifo(end)
    command = ["align", folder / "a.jpg", folder / "a.png", end, "--json-lines", lines, "--workers", 1, *models]
    waiting = os.open(end, os.O_RDWR)  # a writer that writes nothing
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "facelm_sdk", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests may run where it is ignored, under nohup
    )
    assert [process.stdout.readline()[:1] for _ in range(3)] != [b""] * 3  # one face, two faces
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    os.close(waiting)
    assert process.returncode == code and b"Traceback" not in errors, errors
    assert [len(json.loads(line)["faces"]) for line in lines.read_text().splitlines()] == [1, 2]
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]


def test_a_full_stdout(folder, models, tmp_path):
    device = tmp_path / "full"
    try:
        os.mknod(device, 0o020666, os.makedev(1, 7))
        full = device.open("wb")
    except OSError:
        pytest.skip("devices cannot be made here")
    with full:
        for command, unbuffered in ((["align", folder / "a.jpg", *models], ""), (["--help"], ""), (["--help"], "1")):
            result = run_process(*command, stdout=full, env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
            assert result.returncode == 2 and b"No space left on device" in result.stderr
            assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("options", "code", "text"), [([], 2, b"error: stdout cannot be written"), (["-q"], 0, b"")])
def test_a_closed_stdout(folder, models, options, code, text):
    command = [sys.executable, "-m", "facelm_sdk", "align", str(folder / "a.jpg"), *models, *options]
    shell = ["sh", "-c", '"$@" >&-', "sh", *command]
    result = subprocess.run(shell, check=False, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr.strip().partition(b": Bad")[0]) == (code, text)


def test_a_reader_that_leaves_is_no_traceback(folder, models):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        result = run_process("align", folder / "a.jpg", *models, stdout=closed)
    assert result.returncode == 1 and result.stderr == b""


def test_workers_change_nothing(folder, models):
    alone = invoke("align", folder, "-o", folder / "one", "--workers", 1, *models)
    many = invoke("align", folder, "-o", folder / "four", "--workers", 4, *models)
    assert (many.exit_code, many.stdout) == (alone.exit_code, alone.stdout)
    assert files(folder / "four") == files(folder / "one")
    assert isinstance(invoke("align", folder, "--workers", 0, *models).exception, InputError)


def test_options_reach_the_models(folder, models):
    picture = folder / "a.png"
    assert invoke("align", picture, "--max-faces", 1, *models).stdout.count("face ") == 1
    assert invoke("align", picture, "--det-thresh", 0.85, *models).stdout.count("face ") == 1
    assert invoke("align", picture, "--det-size", "320x320", *models).stdout.count("face ") == 2
    assert isinstance(invoke("align", picture, "--det-size", "big", *models).exception, InputError)
    assert "not in int8: leave variant out" in str(invoke("align", picture, "--variant", "int8", *models).exception)
    assert invoke("align", picture, "--precision", "fp32", *models).stdout.count("face ") == 2
    assert isinstance(invoke("align", picture, "--draw", *models).exception, InputError)
    assert isinstance(invoke("align", picture, "--crops", 0, "-o", folder / "o", *models).exception, InputError)


def test_errors_are_one_line_and_exit_code_2(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["facelm", "align", str(folder / "a.png"), "--model", "nonesuch.onnx"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.strip() == "error: no model file nonesuch.onnx"


def test_a_variant_that_is_none(folder, models, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["facelm", "align", str(folder / "a.png"), "--precision", "fp16", *models])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.strip() == "error: variant is auto, fp32 or int8, not 'fp16'"


def test_empty_folder(tmp_path, models):
    assert "no pictures in" in str(invoke("align", tmp_path, *models).exception)


@pytest.fixture
def embedded(embed, landmark_model):
    return embed(landmark_model(data="drawn by hand", licence="CC0", accuracy={"here, %": {"nme": 4.2}}))


def test_models(embedded):
    text = invoke("models").stdout
    assert [line.split() for line in text.splitlines()] == [
        ["model", "file", "task", "points", "crop", "MB", "accuracy"],
        ["tiny", "fp32", "landmarks", "68", "32", "px", "0.0", "NME", "4.20%", "(here)"],
    ]
    text = invoke("models", "--long").stdout
    for part in ("tiny", "landmarks, crops of 32 px", "ibug68 (68 points)", "fp32", "drawn by hand", "CC0", "nme 4.2"):
        assert part in text
    (row,) = json.loads(invoke("models", "--json").stdout)
    assert row["sha256"] == embedded["sha256"] and row["crop"]["size"] == 32


def test_version():
    assert invoke("--version").stdout.startswith("facelm-sdk ")


def by_name(result):
    return {check["name"]: check for check in json.loads(result.stdout)}


def test_doctor(embedded):
    checks = by_name(invoke("doctor", "--json"))
    assert checks["CPUExecutionProvider"] == {"name": "CPUExecutionProvider", "detail": "works", "ok": True}
    assert checks["tiny, fp32"]["ok"] and "usable of" in checks["CPU threads"]["detail"]
    assert "tiny" in invoke("doctor").stdout


def test_doctor_finds_rival_wheels(embedded, monkeypatch):
    known = {"onnxruntime": "1.20.0", "onnxruntime-gpu": "1.19.0", "opencv-python": "4.9"}
    monkeypatch.setattr(doctoring, "_installed", known.get)
    result = invoke("doctor", "--json")
    checks = by_name(result)
    assert result.exit_code == 1
    assert not checks["onnxruntime wheels"]["ok"]
    assert "onnxruntime 1.20.0, onnxruntime-gpu 1.19.0 overwrite each other" in checks["onnxruntime wheels"]["detail"]
    assert checks["OpenCV wheels"]["ok"]


def test_doctor_without_onnxruntime_and_opencv(embedded, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    result = invoke("doctor", "--json")
    checks = by_name(result)
    assert result.exit_code == 1
    assert not checks["onnxruntime"]["ok"] and "pip install" in checks["onnxruntime"]["detail"]
    assert not checks["OpenCV"]["ok"]
    assert "facelm-sdk[cpu]" in invoke("doctor").stdout.replace("\n", "")


def test_doctor_finds_damaged_models(embedded, tmp_path):
    (tmp_path / "tiny.onnx").write_bytes(b"")
    result = invoke("doctor", "--json")
    assert result.exit_code == 1 and "sha256" in by_name(result)["tiny, fp32"]["detail"]


def plugin(monkeypatch, loaded):
    """A CLI with one command from outside; returns it and the list of what was imported."""
    loads = []

    class Entry(EntryPoint):
        def load(self):
            loads.append(self.name)
            if isinstance(loaded, Exception):
                raise loaded
            return loaded

    entry = Entry("greet", "other_package.cli:greet", plugins.PLUGIN_GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    app = typer.Typer()
    app.command("own")(lambda: None)
    app.command("two")(lambda: None)
    plugins.add_plugins(app)
    return app, loads


def greet(name: str = typer.Option("you"), loud: bool = False) -> None:
    """Say hello."""
    typer.echo(f"hello {name}{'!' if loud else ''}")


def as_typer():
    app = typer.Typer()
    app.command()(greet)
    return app


@pytest.mark.parametrize("loaded", [greet, as_typer(), typer.main.get_command(as_typer())], ids=["f", "typer", "click"])
def test_plugins_are_listed_but_loaded_only_when_asked_for(monkeypatch, loaded):
    app, loads = plugin(monkeypatch, loaded)
    assert CliRunner().invoke(app, ["own"]).exit_code == 0
    assert loads == []
    assert re.search(r"greet +Say hello\.", CliRunner().invoke(app, ["--help"]).stdout)
    result = CliRunner().invoke(app, ["greet", "--name", "me", "--loud"])
    assert result.stdout == "hello me!\n" and result.exit_code == 0
    assert "Say hello" in CliRunner().invoke(app, ["greet", "--help"]).stdout
    assert CliRunner().invoke(app, ["greet", "--nonsense"]).exit_code == 2


def test_help_describes_every_command():
    app = typer.Typer()
    app.command("own")(lambda: None)
    plugins.add_plugins(app)
    text = " ".join(CliRunner().invoke(app, ["--help"], terminal_width=200).stdout.split())
    for words in (
        "eval Score an exported model",
        "export Turn a trained",
        "release Score the weights",
        "train Train a",
    ):
        assert words in text


def test_plugin_without_its_packages(monkeypatch):
    app, _ = plugin(monkeypatch, ModuleNotFoundError("No module named 'torch'"))
    assert "(cannot be loaded: No module named 'torch')" in CliRunner().invoke(app, ["--help"]).stdout
    error = CliRunner().invoke(app, ["greet"]).exception
    assert isinstance(error, MissingDependencyError)
    assert "No module named 'torch'" in str(error) and 'facelm-sdk[greet]"' in str(error)


def test_python_m(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["facelm", "--version"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("facelm_sdk", run_name="__main__")
    assert stopped.value.code == 0 and capsys.readouterr().out.startswith("facelm-sdk ")


@pytest.mark.parametrize("command", ["align", "track", "bench", "eval"])
def test_every_command_that_runs_models_takes_a_provider(command, folder, models, monkeypatch, capsys):
    """Exit code 0 with a warning or, with --strict, 2."""
    picture = str(folder / "a.png")
    if command == "track":
        cv2.VideoWriter(str(folder / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64)).write(
            np.zeros((64, 64, 3), np.uint8)
        )
    arguments = {
        "align": [picture, *models],
        "track": [str(folder / "a.avi"), "--json-lines", "-", *models],
        "bench": [models[1], "--seconds", "0"],
        "eval": [*models, "--data", f"300w:{folder}"],
    }[command]

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["facelm", command, *arguments, *options])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, capsys.readouterr().err

    code, text = run("--provider", "NoSuch,cpu", "--strict")
    assert code == 2 and "NoSuch" in text and "is not in this onnxruntime" in text
    if command in ("align", "track"):
        assert run("--provider", "NoSuch,cpu")[0] == 0
        assert "both say where to run" in run("--provider", "cpu", "--device", "cuda")[1]


def test_the_licence_line_leaves_json_alone(folder):
    picture = Path(__file__).resolve().parents[2] / "examples" / "pictures" / "collins.jpg"
    for options, lines in (([], 1), (["--quiet"], 0)):
        result = run_process("align", picture, "--json-lines", "-", *options, stdout=subprocess.PIPE)
        assert result.returncode == 0 and len(json.loads(result.stdout)["faces"]) == 1
        assert result.stderr.count(b"research use") == lines == len(result.stderr.splitlines())
