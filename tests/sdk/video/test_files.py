"""Videos in and out, and ``facelm track``."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from facelm_sdk import cli
from facelm_sdk.errors import ImageError, InputError, OutputError
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.video.container import is_cut_off
from facelm_sdk.video.reader import VideoReader, count_frames
from facelm_sdk.video.tracker import LOOK_SIZE, Tracker
from facelm_sdk.video.writer import CODECS, VideoWriter


@pytest.fixture(params=["PyAV", "OpenCV"])
def backend(request, monkeypatch):
    """What reads and writes videos."""
    if request.param == "OpenCV":
        monkeypatch.setitem(sys.modules, "av", None)
    else:
        pytest.importorskip("av", reason="needs PyAV")
    return request.param


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


def test_a_video_is_read_back(video, backend):
    reader = VideoReader(str(video))
    frames = list(reader)
    assert (len(frames), reader.count, reader.fps, reader.is_camera) == (12, 12, 25.0, False)
    assert frames[0].shape == (480, 640, 3) and frames[0].dtype == np.uint8
    assert frames[0][100, 100, 0] > 200 and frames[0][100, 300, 0] < 50


def test_videos_that_cannot_be_read(tmp_path, backend, capfd):
    for name in (str(tmp_path / "none.mp4"), "x" * 5000):
        with pytest.raises(ImageError, match="no video"):
            VideoReader(name)
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    by = {"PyAV": "FFmpeg", "OpenCV": "OpenCV"}[backend]
    with pytest.raises(ImageError, match=f"cannot open .*text.mp4: not a video {by} can read"):
        VideoReader(str(text))
    assert backend == "OpenCV" or capfd.readouterr().err == ""  # whose FFmpeg prints what it likes


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


def noisy_frames(count, size=(160, 120)):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size[::-1], 3), np.uint8) for _ in range(count)]


def write_video(path, frames):
    with VideoWriter(path, 25) as writer:
        for frame in frames:
            writer.write(frame)


@pytest.mark.parametrize("suffix", CODECS)
def test_every_frame_is_in_the_file(tmp_path, suffix, backend):
    path = tmp_path / f"{'long' * 61}{suffix}"
    write_video(path, noisy_frames(7))
    assert count_frames(path) == 7 and not is_cut_off(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert count_frames(tmp_path / "none") == 0


def test_links_are_followed_and_modes_kept(tmp_path):
    target, link = tmp_path / "a.avi", tmp_path / "b.avi"
    target.touch(mode=0o600)
    link.symlink_to("a.avi")
    write_video(link, noisy_frames(2))
    assert link.is_symlink() and count_frames(target) == 2 and target.stat().st_mode & 0o777 == 0o600
    pipe = tmp_path / "c.avi"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="a device or a pipe"):
        VideoWriter(pipe, 25)


def test_frames_of_another_size_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(OutputError, match=r"its frames are 160x120, and then 120x160"):
        write_video(tmp_path / "a.avi", [*noisy_frames(2), *noisy_frames(1, (120, 160))])
    with (
        pytest.raises(OutputError, match=r"not for 0\.001 frames a second of 160x120"),
        VideoWriter(tmp_path / "a.mp4", 0.001) as writer,
    ):
        writer.write(noisy_frames(1)[0])
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
"""


def run_on_a_full_disk(code, *args, backend="PyAV"):
    """Run Python where no file may be larger than 150 kB, at which writing fails as on a full disk."""
    without = "sys.modules['av'] = None\n" if backend == "OpenCV" else ""
    command = [sys.executable, "-c", FULL_DISK + without + code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_full_disk_leaves_what_was_there(tmp_path, backend):
    code = """
from pathlib import Path
import numpy as np
from facelm_sdk.errors import OutputError
from facelm_sdk.video.writer import VideoWriter
frames = np.random.default_rng(0).integers(0, 256, (60, 120, 160, 3), np.uint8)
for path in map(Path, sys.argv[1:]):
    try:
        with VideoWriter(path, 25) as writer:
            for frame in frames:
                writer.write(frame)
    except OutputError as error:
        print(error)
"""
    paths = [tmp_path / f"a{suffix}" for suffix in CODECS]
    for path in paths:
        path.write_text("what was there")
    result = run_on_a_full_disk(code, *paths, backend=backend)
    assert result.returncode == 0, result.stderr
    for path, line in zip(paths, result.stdout.splitlines(), strict=True):
        assert line.startswith(f"{path} cannot be written: ")
        if backend == "OpenCV" or path.suffix == ".avi":
            assert line.endswith(" of 60 frames are in the file; the disk may be full")
        else:
            assert line.endswith(": File too large")
        assert path.read_text() == "what was there"
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_track_on_a_full_disk(tmp_path, models):
    source, out = tmp_path / "in.avi", tmp_path / "out.avi"
    write_video(source, noisy_frames(30))
    code = "from facelm_sdk.cli import main\nsys.argv[0] = 'facelm'\nmain()"
    result = run_on_a_full_disk(code, "track", source, "-o", out, *models)
    assert result.returncode == 2
    assert re.search(r"error: .*out\.avi cannot be written: \d+ of 30 frames are in the file", result.stderr)
    assert [path.name for path in tmp_path.iterdir() if "avi" in path.name] == ["in.avi"]


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_video_that_is_cut_off_is_told(tmp_path, models, caplog, suffix, backend):
    path, lines = tmp_path / f"in{suffix}", tmp_path / "faces.jsonl"
    write_video(path, noisy_frames(30))
    caplog.clear()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    reader = VideoReader(str(path))
    read = sum(1 for _ in reader)
    assert reader.count == 30 and 3 <= read <= 12 and reader.ended_early
    assert caplog.messages == [f"{path} is cut off: {read} of 30 frames could be read"]
    result = invoke("track", path, "--json-lines", lines, *models)
    assert result.exit_code == 1 and caplog.messages[1:] == caplog.messages[:1]
    assert len(lines.read_text().splitlines()) == read


def test_a_video_that_is_cut_off_behind_its_frames_is_whole(tmp_path, caplog, backend):
    path = tmp_path / "in.avi"
    write_video(path, noisy_frames(30))
    path.write_bytes(path.read_bytes()[:-100])  # of the index
    reader = VideoReader(str(path))
    assert is_cut_off(path) and sum(1 for _ in reader) == 30 and not reader.ended_early and caplog.messages == []


def test_frames_that_a_header_makes_up_are_told(tmp_path, caplog, backend):
    path = tmp_path / "in.avi"
    write_video(path, noisy_frames(30))
    data = bytearray(path.read_bytes())
    place = data.index(b"strh") + 8 + 32  # dwLength
    assert int.from_bytes(data[place : place + 4], "little") == 30
    data[place] = 200
    path.write_bytes(data)
    reader = VideoReader(str(path))
    assert sum(1 for _ in reader) == 30 and not reader.ended_early
    assert caplog.messages == [f"{path} holds fewer frames than it tells of: 30 of 200 could be read"]


def test_containers_that_end_too_early(tmp_path):
    path = tmp_path / "a"
    box = (16).to_bytes(4, "big") + b"ftyp" + bytes(8)
    long = (1).to_bytes(4, "big") + b"mdat" + (24).to_bytes(8, "big") + bytes(8)
    to_the_end = (0).to_bytes(4, "big") + b"mdat" + bytes(50)
    segment = b"\x1a\x45\xdf\xa3\x81a\x18\x53\x80\x67"
    for whole in (box + long + box, box + to_the_end, segment + b"\x84abcd", segment + b"\x40\x05abcde"):
        path.write_bytes(whole)
        assert not is_cut_off(path)
        path.write_bytes(whole[:-1])
        assert is_cut_off(path) == (to_the_end not in whole)
    for other in (segment + b"\xff", segment + b"\x01" + b"\xff" * 7, b"", b"text", segment[:5], segment[:7], box[:9]):
        path.write_bytes(other)
        assert is_cut_off(path) == (other == box[:9])


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
