"""Videos as they are: times, rotation, audio, what browsers play; streams, pictures, cameras and windows."""

from __future__ import annotations

import functools
import http.server
import io
import json
import re
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from facelm_sdk import cli
from facelm_sdk.cli import track as tracking
from facelm_sdk.errors import ImageError, InputError, OutputError
from facelm_sdk.types import Face
from facelm_sdk.video.reader import VideoReader
from facelm_sdk.video.tracker import Tracker
from facelm_sdk.video.trails import Trails
from facelm_sdk.video.writer import VideoWriter

av = pytest.importorskip("av", reason="needs PyAV")

TIMES = [0.0, 0.04, 0.1, 0.5, 0.52, 0.9]
"""Seconds of frames that come at no constant rate."""


def frames(count=6, size=(160, 120)):
    """Frames whose upper left quarter tells their number."""
    for index in range(count):
        frame = np.full((size[1], size[0], 3), (60, 120, 30), np.uint8)
        frame[: size[1] // 2, : size[0] // 2] = (10, 200 - 3 * index, 40 + 3 * index)
        yield frame


def write(path, times=TIMES, **options):
    with VideoWriter(path, 25, **options) as writer:
        for frame, seconds in zip(frames(len(times)), times, strict=True):
            writer.write(frame, seconds)
    return path


def with_audio(path, codec="aac", start=0.0, rotation=0):
    """A video of a second with a tone, both of which begin at ``start`` seconds."""
    rate = 16_000
    with av.open(str(path), "w") as target:
        video = target.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        sound = target.add_stream(codec, rate=rate)
        sound.codec_context.layout = "mono"
        for index, frame in enumerate(frames(25)):
            picture = av.VideoFrame.from_ndarray(frame, format="bgr24")
            picture.pts, picture.time_base = round(1000 * start) + 40 * index, Fraction(1, 1000)
            target.mux(video.encode(picture))
        tone = (8000 * np.sin(np.arange(rate) * 440 * 2 * np.pi / rate)).astype(np.int16)
        for first in range(0, rate, 1600):
            part = av.AudioFrame.from_ndarray(tone[None, first : first + 1600], format="s16", layout="mono")
            part.sample_rate, part.pts, part.time_base = rate, first + round(rate * start), Fraction(1, rate)
            target.mux(sound.encode(part))
        target.mux(video.encode(None))
        target.mux(sound.encode(None))
    return path


def heard(path):
    """The codec of a file's audio, and the samples' first time, length in seconds and loudness."""
    with av.open(str(path)) as source:
        stream = source.streams.audio[0]
        parts = list(source.decode(stream))
        values = np.concatenate([part.to_ndarray().ravel().astype(float) for part in parts])
        scale = 1 if np.abs(values).max() <= 1 else 32768
        seconds = sum(part.samples for part in parts) / stream.codec_context.sample_rate
        return stream.codec_context.name, parts[0].time, seconds, float(np.sqrt(np.mean((values / scale) ** 2)))


def invoke(*args):
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


@pytest.fixture
def models(landmark_model, detector_model):
    return ["--model", str(landmark_model()), "--detector", str(detector_model())]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_browsers_play_what_is_written(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}")
    with av.open(str(path)) as video:
        context = video.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.colorspace) == ("h264", "yuv420p", 1)
    data = path.read_bytes()
    if suffix != ".mkv":
        assert data.index(b"moov") < data.index(b"mdat")  # plays before all of it is there
    reader = VideoReader(path)
    seconds, found = zip(*reader.timed(), strict=True)
    np.testing.assert_allclose(seconds, TIMES, atol=1e-3)
    for one, other in zip(found, frames(), strict=True):
        assert np.abs(one[20:40, 20:60].astype(int) - other[20:40, 20:60]).max() < 9  # its colours, too


def test_odd_sides_are_filled_up(tmp_path):
    frame = np.zeros((121, 161, 3), np.uint8)
    frame[-1], frame[:, -1] = 255, 255
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(frame)
    (found,) = VideoReader(tmp_path / "a.mp4")
    assert found.shape == (122, 162, 3) and found[-2:, 100].min() > 200 and found[60, -2:].min() > 200


@pytest.mark.parametrize(("codec", "kept"), [("aac", "aac"), ("libmp3lame", "mp3float"), ("pcm_s16le", "aac")])
def test_audio_is_kept(tmp_path, codec, kept):
    source = with_audio(tmp_path / ("in.mov" if codec.startswith("pcm") else "in.mp4"), codec)
    write(tmp_path / "out.mp4", [index / 25 for index in range(25)], audio=source)
    before, after = heard(source), heard(tmp_path / "out.mp4")
    assert after[0] == kept
    assert after[1] == pytest.approx(before[1], abs=0.05) and after[2] == pytest.approx(before[2], abs=0.15)
    assert after[3] == pytest.approx(before[3], rel=0.1) and after[3] > 0.1
    if codec.startswith("pcm"):  # which other players know
        assert heard(write(tmp_path / "out.mov", [0, 1], audio=source))[0] == codec
    silent = write(tmp_path / "silent.mp4", audio=write(tmp_path / "none.mp4"))
    assert len(list(VideoReader(silent))) == len(TIMES)


def test_audio_stays_with_its_pictures(tmp_path, models):
    source = with_audio(tmp_path / "in.mkv", start=5.0)
    result = invoke("track", source, "-o", tmp_path / "out.mp4", "--json-lines", tmp_path / "a.jsonl", *models)
    assert result.exit_code == 0, result.output
    assert "25 frames, 1 face, " in result.stderr
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(seconds, np.arange(25) / 25, atol=0.03)
    assert heard(tmp_path / "out.mp4")[1] == pytest.approx(0, abs=0.1)


def test_an_interrupt_ends_the_audio_with_the_video(tmp_path):
    source = with_audio(tmp_path / "in.mp4")
    with (
        pytest.raises(KeyboardInterrupt),
        VideoWriter(tmp_path / "out.mp4", 25, audio=source, keep_interrupted=True) as writer,
    ):
        for index, frame in enumerate(frames(6)):
            writer.write(frame, index / 25)
        raise KeyboardInterrupt
    assert heard(tmp_path / "out.mp4")[2] < 0.4
    assert len(list(VideoReader(tmp_path / "out.mp4"))) == 6


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_audio_that_is_cut_off_is_kept_as_far_as_it_goes(tmp_path, codec, caplog):
    source = with_audio(tmp_path / "in.mkv", codec)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    reader = VideoReader(source)
    with VideoWriter(tmp_path / "out.mp4", 25, audio=source) as writer:
        for seconds, frame in reader.timed():
            writer.write(frame, seconds)
    assert reader.ended_early and "is cut off" in caplog.text
    assert 0.1 < heard(tmp_path / "out.mp4")[2] < 0.9 and len(list(VideoReader(tmp_path / "out.mp4"))) < 25


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_videos_are_read_upright(tmp_path, rotation):
    path = with_audio(tmp_path / "a.mp4", rotation=rotation)
    capture = cv2.VideoCapture(str(path))
    expected = capture.read()[1]
    found = next(iter(VideoReader(path)))
    assert found.shape == expected.shape == ((120, 160, 3) if rotation == 180 else (160, 120, 3))
    assert np.abs(found.astype(int) - expected).mean() < 5


def test_damaged_packets_are_passed_over(tmp_path):
    path = write(tmp_path / "a.mkv", [index / 25 for index in range(50)])
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 60] = bytes(60)
    path.write_bytes(data)
    assert 10 < len(list(VideoReader(path))) <= 50


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_urls(tmp_path, server, models):
    write(tmp_path / "a.mp4")
    reader = VideoReader(f"{server}/a.mp4")
    assert [round(seconds, 2) for seconds, _ in reader.timed()] == TIMES and not reader.is_live
    result = invoke("track", f"{server}/a.mp4", "-o", tmp_path / "out.mp4", *models)
    assert result.exit_code == 0 and (tmp_path / "out.mp4").is_file()
    with pytest.raises(ImageError, match=rf"cannot open {server}/none.mp4: not a video FFmpeg can read \(.*404"):
        VideoReader(f"{server}/none.mp4")
    with pytest.raises(ImageError, match=r"cannot open rtsp://127\.0\.0\.1:1/a: not a video FFmpeg can read \(Conn"):
        VideoReader("rtsp://127.0.0.1:1/a")


def test_a_file_is_no_list_of_other_files(tmp_path):
    write(tmp_path / "secret.mp4")
    (tmp_path / "a.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(ImageError, match="cannot open"):
        VideoReader(tmp_path / "a.m3u8")


def test_pictures_as_a_video(tmp_path, models):
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, frame in enumerate(frames(4)):
        cv2.imwrite(str(folder / f"f{8 + index:03}.png"), frame)
    (folder / "notes.txt").touch()
    for source in (folder, folder / "f%03d.png", folder / "f%d.png"):
        reader = VideoReader(source, fps=10)
        found = list(reader.timed())
        assert (reader.count, reader.fps) == (4, 10) and [seconds for seconds, _ in found] == [0, 0.1, 0.2, 0.3]
        for (_, one), other in zip(found, frames(4), strict=True):
            np.testing.assert_array_equal(one, other)
    out = tmp_path / "out.mp4"
    assert invoke("track", folder, "-o", out, "--fps", 10, *models).exit_code == 0
    assert [round(seconds, 2) for seconds, _ in VideoReader(out).timed()] == [0, 0.1, 0.2, 0.3]
    with pytest.raises(ImageError, match=r"no video .*%04d\.png; accepted are video files, URLs"):
        VideoReader(folder / "f%04d.png")
    with pytest.raises(ImageError, match=r"no pictures in .*: no file is there; accepted are \.jpg"):
        (tmp_path / "none").mkdir()
        VideoReader(tmp_path / "none")
    with pytest.raises(InputError, match="fps is frames a second"):
        VideoReader(folder, fps=0)


def test_a_camera_that_is_not_there(capfd):
    found = {path.name for path in Path("/dev").glob("video*")}
    if "video63" in found:
        pytest.skip("there is such a camera")
    with pytest.raises(ImageError, match=r"^cannot open camera 63: "):
        VideoReader("63")
    assert capfd.readouterr() == ("", "")
    if sys.platform == "linux" and not found:
        with pytest.raises(ImageError, match=r"there is none$"):
            VideoReader("0")


def face(x, number, side=40.0):
    points = np.random.default_rng(0).uniform(0, side, (68, 2)).astype(np.float32) + np.float32((x, 40))
    box = np.array([x, 40, x + side, 40 + side], np.float32)
    return Face(
        bbox=box, score=0.9, kps=points[:5], landmarks=points, scores=None, markup="ibug68", transform=None,
        track_id=number,
    )  # fmt: skip


def test_tails_follow_faces_and_end():
    trails, blank = Trails(tail=5), np.zeros((120, 320, 3), np.uint8)
    for x in (20, 60, 100, 140, 180):
        drawn = trails(blank, [face(x, 1)])
    assert drawn[58:63, 45:175].any(axis=(0, 2)).all()  # from the first centre to the last
    assert blank.max() == 0
    for _ in range(4):
        assert trails(blank, []).any()
    assert not trails(blank, []).any() and not trails(blank, []).any()
    numbered = Trails(0)(blank, [face(100, 7)])
    other = Trails(0)(blank, [face(100, 8)])
    assert (numbered != other).any() and (numbered[:38] != 0).any()
    with pytest.raises(InputError, match="tail is a whole number"):
        Trails(-1)


def test_a_window_needs_a_display(tmp_path, models, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    result = invoke("track", write(tmp_path / "a.mp4"), "--show", *models)
    assert isinstance(result.exception, InputError) and "--show needs a display" in str(result.exception)
    monkeypatch.setenv("DISPLAY", ":0")

    def refuse(*arguments):
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "namedWindow", refuse)
    result = invoke("track", tmp_path / "a.mp4", "--show", *models)
    assert isinstance(result.exception, InputError) and "pip install opencv-python" in str(result.exception)


def test_a_window_shows_the_video_until_q(tmp_path, models, monkeypatch):
    shown, keys = [], iter([-1, -1, ord("q")])
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *arguments: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append(image.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: next(keys))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *arguments: 1.0)
    monkeypatch.setattr(cv2, "destroyWindow", lambda title: shown.append(title))
    source, out = write(tmp_path / "a.mp4"), tmp_path / "out.mp4"
    result = invoke("track", source, "--show", "-o", out, *models)
    assert result.exit_code == 0 and "3 frames, 1 face, " in result.stderr
    assert shown == [(120, 160, 3)] * 3 + [f"facelm track {source}"]
    assert len(list(VideoReader(out))) == 3


def test_one_frame_is_not_frames(tmp_path, models):
    result = invoke("track", write(tmp_path / "a.mp4", [0.0]), "-o", tmp_path / "out.mp4", *models)
    assert result.stderr.startswith("1 frame, 1 face, ")


def test_the_bar_tells_frames_a_second(tmp_path, models, monkeypatch):
    text, track = io.StringIO(), Tracker.__call__
    monkeypatch.setattr(tracking, "stderr", Console(file=text, force_terminal=True, width=120))
    # The bar is drawn ten times a second, so that a fast machine ends before it is.
    monkeypatch.setattr(Tracker, "__call__", lambda *args, **options: time.sleep(0.03) or track(*args, **options))
    write(tmp_path / "a.mp4", [index / 25 for index in range(25)])
    assert invoke("track", tmp_path / "a.mp4", "--json-lines", tmp_path / "a.jsonl", *models).exit_code == 0
    assert re.search(r"\d+\.\d frames/s", text.getvalue())


def test_a_folder_that_cannot_be_written_is_no_missing_encoder(tmp_path):
    place = Path("/proc/self")
    if not place.is_dir():
        pytest.skip("needs a folder that nobody can write into")
    for suffix in (".mp4", ".avi"):
        with (
            pytest.raises(OutputError, match="cannot be written: ") as raised,
            VideoWriter(place / f"a{suffix}", 25) as one,
        ):
            one.write(next(frames()))
        assert "encoder" not in str(raised.value)


def test_without_pyav_there_is_a_line_to_type(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "av", None)
    write(tmp_path / "a.mp4")
    assert caplog.messages == [
        f"{tmp_path / 'a.mp4'} is MPEG-4 without audio, which browsers do not play; for H.264, "
        'type: pip install "facelm-sdk[video]"'
    ]
    assert len(list(VideoReader(tmp_path / "a.mp4"))) == len(TIMES)
