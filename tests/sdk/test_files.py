"""Writing whole files or none."""

from __future__ import annotations

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from facelm_sdk.errors import FacelmError, InputError, OutputError
from facelm_sdk.files import LinesFile, check_outputs, check_place, read_bytes, write_bytes, write_files


@pytest.fixture
def pipe(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture
def full_device(tmp_path):
    """A device on which there is never room; not the system's own, which a fault would replace."""
    path = tmp_path / "full"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        path.open("wb").close()
    except OSError:
        pytest.skip("devices cannot be made here")
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_folder(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("blocked", ["folder", "file"])
def test_what_cannot_be_written_is_told_and_leaves_nothing(tmp_path, blocked):
    if blocked == "folder":
        (tmp_path / "a").write_text("a file where a folder should be")
    else:
        (tmp_path / "a" / "file.bin" / "inside").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=r"file\.bin cannot be written: ") as caught:
        write_bytes(tmp_path / "a" / "file.bin", b"data")
    assert isinstance(caught.value, OSError) and isinstance(caught.value, FacelmError)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_of_several_files_all_are_written_or_none(tmp_path, monkeypatch, error):
    """The second does not fit on the disk, or comes as the user interrupts."""
    write = Path.write_bytes

    def failing(path, data):
        write(path, data[:2])
        if len(data) > 2:
            raise error

    kept = tmp_path / "kept.bin"
    kept.write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", failing)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_files({kept: b"ne", tmp_path / "a" / "b" / "large.bin": b"too large"})
    if expected is OutputError:
        assert "large.bin cannot be written: No space left on device" in str(caught.value)
    assert kept.read_bytes() == b"old"
    assert [path.name for path in tmp_path.rglob("*")] == ["kept.bin"]


def test_a_place_is_looked_at_beforehand(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    check_place(tmp_path / "new" / "folder" / "x.onnx")
    with pytest.raises(OutputError, match=r"x\.onnx cannot be written: .*file is a file, not a folder"):
        check_place(tmp_path / "file" / "new" / "x.onnx")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(OutputError, match="no permission to write in"):
        check_place(tmp_path / "x.onnx")
    with pytest.raises(OutputError, match="File name too long"):
        check_place(tmp_path / ("n" * 300))


@pytest.mark.parametrize("linked", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_what_was_there_is_put_back(tmp_path, monkeypatch, linked, failing):
    """The last place cannot be taken, on file systems with hard links and without."""
    replace = Path.replace

    def fail(path, target):
        if Path(target).name == f"{failing}.bin" and not path.read_bytes().startswith(b"old"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return replace(path, target)

    def no_links(*paths):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "replace", fail)
    if not linked:
        monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "0.bin").write_bytes(b"old 0")
    (tmp_path / "2.bin").write_bytes(b"old 2")
    with pytest.raises(OutputError, match=rf"{failing}\.bin cannot be written: Input/output error"):
        write_files({tmp_path / f"{number}.bin": b"new" for number in range(3)})
    assert names(tmp_path) == ["0.bin", "2.bin"]
    assert [(tmp_path / f"{number}.bin").read_bytes() for number in (0, 2)] == [b"old 0", b"old 2"]


def test_what_cannot_be_put_back_is_kept(tmp_path, monkeypatch):
    replace, gone = Path.replace, []

    def fail_from_the_second(path, target):
        if gone:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        gone.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_from_the_second)
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OutputError, match=r"what stood at .*a is kept as ") as caught:
        write_files({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert Path(str(caught.value).rpartition(" ")[2]).read_bytes() == b"old"


def test_writers_of_one_file_tear_nothing(tmp_path):
    """Threads of one process, whose number in a draft's name is the same."""
    paths = [tmp_path / "new" / name for name in ("a", "b")]
    start = threading.Barrier(4)

    def write(number):
        start.wait()
        for _ in range(50):
            write_files({path: bytes([number]) * 100_000 for path in paths})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert names(tmp_path / "new") == ["a", "b"]
    for path in paths:
        assert path.read_bytes() in [bytes([number]) * 100_000 for number in range(4)]


@pytest.mark.parametrize("length", [248, 255])
def test_the_longest_names(tmp_path, length):
    path = tmp_path / ("n" * length)
    write_files({path: b"one", tmp_path / "other": b""})
    assert path.read_bytes() == b"one"


def test_links_are_followed_and_modes_kept(tmp_path):
    (tmp_path / "disk").mkdir()
    real = tmp_path / "disk" / "real"
    real.write_bytes(b"old")
    real.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(Path("disk") / "real")
    write_files({link: b"new", tmp_path / "other": b""})
    assert link.is_symlink() and real.read_bytes() == b"new" and stat.S_IMODE(real.stat().st_mode) == 0o600
    assert names(tmp_path / "disk") == ["real"]
    dangling = tmp_path / "dangling"
    dangling.symlink_to(Path("later") / "real")
    write_bytes(dangling, b"new")
    assert (tmp_path / "later" / "real").read_bytes() == b"new"
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    with pytest.raises(OutputError, match="Too many levels of symbolic links"):
        write_bytes(circle, b"new")


def test_devices_and_pipes_are_written_into(tmp_path, pipe, full_device):
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        write_bytes(pipe, b"data" * 100_000)
        assert read.result() == b"data" * 100_000
    kept = tmp_path / "kept"
    kept.write_bytes(b"old")
    with pytest.raises(OutputError, match="full cannot be written: No space left on device"):
        write_files({kept: b"new", full_device: b"data"})
    assert kept.read_bytes() == b"old"
    assert names(tmp_path) == ["full", "kept", "pipe"]
    assert stat.S_ISCHR(full_device.stat().st_mode) and stat.S_ISFIFO(pipe.stat().st_mode)


def test_an_open_file_is_written_on(tmp_path):
    """As /dev/stdout is where the shell has opened a file: between what others print."""
    path = tmp_path / "stdout"
    with path.open("wb", buffering=0) as file:
        file.write(b"before ")
        link = tmp_path / "link"
        link.symlink_to(f"/dev/fd/{file.fileno()}")
        write_bytes(link, b"data")
        file.write(b" after")
    assert path.read_bytes() == b"before data after"


def test_lines_take_their_place_at_the_end(tmp_path):
    path = tmp_path / "new" / "lines"
    with LinesFile(path) as lines:
        lines.write(b"one\n")
        assert not path.exists()
    assert path.read_bytes() == b"one\n" and names(path.parent) == ["lines"]
    with pytest.raises(KeyboardInterrupt), LinesFile(path):
        raise KeyboardInterrupt
    assert path.read_bytes() == b"one\n"
    with pytest.raises(KeyboardInterrupt), LinesFile(path) as lines:
        lines.write(b"two\n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"two\n" and names(path.parent) == ["lines"]
    with pytest.raises(KeyboardInterrupt), LinesFile(tmp_path / "other" / "lines"):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["new"]


def test_lines_that_fit_are_kept(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    with pytest.raises(OutputError, match="lines cannot be written: No space left on device"), LinesFile(path) as lines:
        lines.write(b"one\n")
        whole = lines._file

        class Full:
            def write(self, data):
                whole.write(data[:2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(lines, "_file", Full())
        try:
            lines.write(b"two\n")
        finally:
            monkeypatch.setattr(lines, "_file", whole)
    assert path.read_bytes() == b"one\n" and names(tmp_path) == ["lines"]


def test_a_pipe_gets_lines_at_once(pipe):
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(pipe.open, "rb", buffering=0)
        with LinesFile(pipe) as lines, reader.result() as end:
            lines.write(b"one\n")
            assert end.read(100) == b"one\n"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_outputs_are_no_inputs_and_differ(tmp_path, pipe):
    picture, link, hard = (tmp_path / name for name in ("a.jpg", "link", "hard"))
    picture.write_bytes(b"picture")
    link.symlink_to("a.jpg")
    os.link(picture, hard)
    for path in (picture, link, hard, tmp_path / "x" / ".." / "a.jpg"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=r"--json-lines .* would be written over what is read"):
            check_outputs({"--json-lines": path}, [picture])
    new, also_new = tmp_path / "new", tmp_path / "x" / ".." / "new"
    with pytest.raises(InputError, match="-o and --json-lines are the same file"):
        check_outputs({"-o": new, "--json-lines": also_new}, [picture])
    with pytest.raises(OutputError, match="it is a folder"):
        check_outputs({"-o": tmp_path})
    check_outputs({"-o": new, "--json-lines": tmp_path / "other", "a": pipe, "b": pipe}, [picture, tmp_path / "none"])


def test_pipes_and_devices_are_read_without_waiting(pipe):
    with pytest.raises(OSError, match="a pipe that nobody writes into"):
        read_bytes(pipe)
    end, start = os.pipe()  # as a shell's <(command)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(read_bytes, Path(f"/dev/fd/{end}"))
        os.write(start, b"data" * 10_000)
        os.close(start)
        assert read.result() == b"data" * 10_000
    os.close(end)
    with pytest.raises(OSError, match="a device, not a file"):
        read_bytes(Path(os.devnull))
