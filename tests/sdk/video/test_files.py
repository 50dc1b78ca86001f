"""Videos in and out, and ``facelm track``."""

from __future__ import annotations

import json
import os
import stat
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from facelm_sdk import cli
from facelm_sdk.errors import ImageError, InputError, OutputError
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.video.reader import VideoReader
from facelm_sdk.video.tracker import LOOK_SIZE, Tracker
from facelm_sdk.video.writer import VideoWriter


@pytest.fixture
def video(tmp_path, scene):
    """12 frames, 25 a second, of a box that moves; a second box comes into the seventh."""
    path = tmp_path / "in.avi"
    with VideoWriter(path, 25.0) as writer:
        for step in range(12):
            boxes = [(50 + 4 * step, 60, 170 + 4 * step, 190)]
            boxes += [(400, 200, 500, 310)] if step > 5 else []
            writer.write(scene(640, 480, *boxes))
    return path


@pytest.fixture
def models(landmark_model, detector_model):
    return ["--model", str(landmark_model()), "--detector", str(detector_model())]


def invoke(*args):
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


def test_a_video_is_read_back(video):
    reader = VideoReader(str(video))
    frames = list(reader)
    assert (len(frames), reader.count, reader.fps, reader.is_camera) == (12, 12, 25.0, False)
    assert frames[0].shape == (480, 640, 3) and frames[0].dtype == np.uint8
    assert frames[0][100, 100, 0] > 200 and frames[0][100, 300, 0] < 50


def test_videos_that_cannot_be_read(tmp_path):
    with pytest.raises(ImageError, match="no video"):
        VideoReader(str(tmp_path / "none.mp4"))
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(ImageError, match="cannot open"):
        VideoReader(str(text))


def test_an_interrupted_video_leaves_nothing(tmp_path):
    frame = np.zeros((64, 64, 3), np.uint8)
    for kept in (False, True):
        path = tmp_path / "out" / "out.avi"
        with pytest.raises(KeyboardInterrupt), VideoWriter(path, 25, keep_interrupted=kept) as writer:
            writer.write(frame)
            raise KeyboardInterrupt
        assert [file.name for file in path.parent.iterdir()] == (["out.avi"] if kept else [])
    with pytest.raises(OutputError, match=r"accepted are \.mp4"):
        VideoWriter(tmp_path / "out.gif", 25)


def test_track(video, models, tmp_path):
    out, lines = tmp_path / "out.avi", tmp_path / "faces.jsonl"
    result = invoke("track", video, "-o", out, "--json-lines", lines, "--redetect-every", 8, "--profile", *models)
    assert result.exit_code == 0, result.output
    assert "12 frames, 2 faces" in result.stderr and "landmarks: network" in result.stderr
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["frame"] for record in records] == list(range(12))
    assert records[5]["seconds"] == pytest.approx(0.2)
    assert {face["track_id"] for face in records[11]["faces"]} == {1, 2}
    (drawn, plain) = ([frame.astype(int) for frame in VideoReader(str(path))] for path in (out, video))
    assert len(drawn) == 12 and np.abs(drawn[11] - plain[11]).max() > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.jsonl", "in.avi", "out.avi"]


def test_track_to_stdout(video, models):
    result = invoke("track", video, "--json-lines", "-", "--max-faces", 1, "--quiet", *models)
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(records) == 12 and all(len(record["faces"]) <= 1 for record in records)
    assert result.stderr == ""


def test_track_passes_size_and_variant_on(video, models, monkeypatch, capsys):
    seen = []
    run = OrtSession.run

    def record(self, feeds):
        seen.extend(feed.shape[1:3] for name, feed in feeds.items() if name == "image")
        return run(self, feeds)

    monkeypatch.setattr(OrtSession, "run", record)
    options = ("--det-size", "160x96", "--variant", "fp32")
    assert invoke("track", video, "--json-lines", "-", *options, *models).exit_code == 0
    assert set(seen) - {(LOOK_SIZE, LOOK_SIZE)} == {(96, 160)}
    for options, message in (
        (["--det-size", "big"], "det_size is 'auto', a long side or (width, height) of 64 to 4096 pixels; got 'big'"),
        (["--variant", "half"], "variant is auto, fp32 or int8, not 'half'"),
        (["--precision", "int8"], f"{models[1]} is in fp32, not in int8: leave variant out"),
    ):
        monkeypatch.setattr(sys, "argv", ["facelm", "track", str(video), "--json-lines", "-", *options, *models])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        assert capsys.readouterr().err.strip() == f"error: {message}"


def test_track_refuses_what_makes_no_sense(video, models, tmp_path):
    before = video.read_bytes()
    assert isinstance(invoke("track", video, *models).exception, InputError)
    assert isinstance(invoke("track", video, "-o", video, *models).exception, InputError)
    assert isinstance(invoke("track", video, "-o", tmp_path / "a.txt", *models).exception, OutputError)
    assert isinstance(invoke("track", tmp_path / "none.mp4", "-o", tmp_path / "a.mp4", *models).exception, ImageError)
    assert video.read_bytes() == before


def test_track_writes_over_nothing_that_it_reads(video, models, tmp_path):
    before, out = video.read_bytes(), tmp_path / "out.avi"
    for options in (["--json-lines", video], ["-o", out, "--json-lines", out], ["--json-lines", models[1]]):
        assert isinstance(invoke("track", video, *options, *models).exception, InputError)
    (tmp_path / "link.avi").symlink_to(video)
    assert isinstance(invoke("track", video, "-o", tmp_path / "link.avi", *models).exception, InputError)
    assert video.read_bytes() == before and not out.exists()


def test_a_video_follows_links_and_keeps_the_mode(tmp_path):
    frame = np.zeros((64, 64, 3), np.uint8)
    real, link = tmp_path / "real.avi", tmp_path / "link.avi"
    real.write_bytes(b"old")
    real.chmod(0o600)
    link.symlink_to(real)
    with VideoWriter(link, 25) as writer:
        writer.write(frame)
    assert link.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o600
    assert len(list(VideoReader(str(real)))) == 1
    with VideoWriter(tmp_path / f"{'n' * 244}.avi", 25) as writer:
        writer.write(frame)
    os.mkfifo(tmp_path / "pipe.avi")
    with pytest.raises(OutputError, match="a device or a pipe"):
        VideoWriter(tmp_path / "pipe.avi", 25)
    assert len(list(tmp_path.iterdir())) == 4


def test_lines_of_an_interrupted_track_are_kept(video, models, tmp_path, monkeypatch):
    follow = Tracker.__call__

    def interrupted(tracker, frame):
        if (tmp_path / "stop").exists():
            raise KeyboardInterrupt
        (tmp_path / "stop").touch()
        return follow(tracker, frame)

    monkeypatch.setattr(Tracker, "__call__", interrupted)
    lines, out = tmp_path / "faces.jsonl", tmp_path / "out.avi"
    result = invoke("track", video, "-o", out, "--json-lines", lines, *models)
    assert result.exit_code == 130 and not out.exists()
    assert [json.loads(line)["frame"] for line in lines.read_text().splitlines()] == [0]
