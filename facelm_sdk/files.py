"""Reading and writing whole files: none half written, none lost, none written over that is read."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType

from .errors import InputError, OutputError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)

Identity = tuple[int, int] | str
"""What all paths of one file have in common, whatever links lead to it."""


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Return a path with ~ as the home folder; one of a user that is none stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path's raises)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is that of a file; False, too, where it is too long or there is no permission to look."""
    return os.path.isfile(path)  # noqa: PTH113 (Path's raises)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is that of a folder, as :func:`is_file` does."""
    return os.path.isdir(path)  # noqa: PTH112


def is_url(source: str) -> bool:
    """Return whether a text is an address, such as https://..., which a Path would damage."""
    return _URL.match(source) is not None


def printable(text: str) -> str:
    """Return a text with file names in it as valid Unicode: bytes that are not UTF-8 become ``\\xff`` and the like."""
    surrogates = "surrogatepass" if os.name == "nt" else "surrogateescape"
    return text.encode("utf-8", surrogates).decode("utf-8", "backslashreplace")


def read_bytes(path: Path) -> bytes:
    """Return what a file holds, or a pipe that somebody writes into. Raises OSError, for devices and idle pipes too."""
    mode = path.stat().st_mode
    if stat.S_ISFIFO(mode):
        return _read_pipe(path)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise OSError(errno.EINVAL, "it is a device, not a file")
    return path.read_bytes()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically, its folder too: a reader sees the old one or the whole new one.

    A link is followed, and a file that is there keeps its mode. A device, a pipe and /dev/stdout are written into.
    Raises OutputError where that is not possible.
    """
    write_files({path: data})


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write files and the folders they lie in: all of them or, where one cannot be written, none.

    None takes its place before all are written, and what stood in the places is put back where one cannot be taken.
    Of each, what :func:`write_bytes` says. What went into a device or a pipe stays there. Raises OutputError.
    """
    places: list[tuple[Path, Path, Path]] = []
    path = Path()
    try:
        with ExitStack() as leftovers, ExitStack() as undo:  # an interrupt too leaves nothing behind
            for path, data in files.items():
                if is_stream(path):
                    with open_stream(path) as stream:
                        _write_all(stream, data)
                    continue
                target, draft = _begin(path, leftovers)
                places.append((path, target, draft))
                draft.write_bytes(data)
            backups = [draft_beside(target) for _, target, _ in places]
            for (path, target, draft), backup in zip(places, backups, strict=True):  # noqa: B007 (the error names it)
                if len(places) > 1:
                    undo.callback(_put_back, target, draft, backup)
                    _back_up(target, backup)
            for path, target, draft in places:  # noqa: B007
                place(draft, target)
            undo.pop_all()
            for backup in backups:
                leftovers.callback(_remove, backup)
    except OSError as error:
        raise _cannot_write(path, error) from error


class LinesFile:
    """A file written line by line, which takes its place at the end, with the lines there are where a run is cut short.

    A device, a pipe and /dev/stdout get each line at once. A run that is cut short before its first line leaves what is
    there. Raises OutputError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._leftovers = ExitStack()
        self._file: FileIO
        self._places: tuple[Path, Path] | None = None  # target and draft
        self._size = 0  # of whole lines

    def __enter__(self) -> LinesFile:
        try:
            if is_stream(self.path):
                self._file = open_stream(self.path)
            else:
                self._places = _begin(self.path, self._leftovers)
                self._file = self._places[1].open("xb", buffering=0)
        except BaseException as error:
            self._leftovers.close()
            if isinstance(error, OSError):
                raise _cannot_write(self.path, error) from error
            raise
        return self

    def write(self, line: bytes) -> None:
        """Add a line, which ends in a newline."""
        try:
            _write_all(self._file, line)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self._size += len(line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._leftovers:
                with self._file:
                    if self._places is not None:
                        self._file.truncate(self._size)  # a line that was cut short
                if self._places is not None and (error is None or self._size):
                    target, draft = self._places
                    place(draft, target)
        except OSError as problem:
            raise _cannot_write(self.path, problem) from problem


def check_outputs(outputs: Mapping[str, Path], inputs: Iterable[Path] = ()) -> None:
    """Raise where a command would write over a file that it reads, or two of its outputs would be one file.

    To be asked by every command before it does any work. ``outputs`` are by what to call them, such as their option. A
    device and a pipe may be named twice. Raises InputError, and OutputError as :func:`check_place` does.
    """
    read = identities(inputs)
    written: dict[Identity, str] = {}
    for name, path in outputs.items():
        if identity(path) in read:
            raise InputError(f"{name} {path} would be written over what is read from it; give it another name")
        if not is_stream(path):
            other = written.setdefault(identity(path), name)
            if other != name:
                raise InputError(f"{other} and {name} are the same file, {path}; give them different names")
        check_place(path)
        if path.is_dir():
            raise OutputError(f"{name} {path} cannot be written: it is a folder, not a file")


def check_place(path: Path) -> None:
    """Raise OutputError where a file at ``path`` could not be written, before the work that makes it is done."""
    try:
        if is_stream(path):
            return
        folder = next(parent for parent in resolve_target(path).parents if os.path.lexists(parent))
    except OSError as error:
        raise _cannot_write(path, error) from error
    if not folder.is_dir():
        raise OutputError(f"{path} cannot be written: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be written: no permission to write in {folder}")


def identity(path: Path) -> Identity:
    """Return what equals that of every other path of the same file."""
    try:
        status = path.stat()
    except OSError:
        return os.path.normcase(os.path.realpath(path))
    return status.st_dev, status.st_ino


def identities(paths: Iterable[Path]) -> set[Identity]:
    """Return the identities of the files among ``paths`` that are there."""
    return {identity(path) for path in paths if os.path.lexists(path)}


def is_stream(path: Path) -> bool:
    """Return whether a path is what can only be written into: a device, a pipe, an open file such as /dev/stdout."""
    if _open_file(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def open_stream(path: Path) -> FileIO:
    """Open what :func:`is_stream` tells of, for writing; a pipe waits for its reader."""
    number = _open_file(path)  # opened anew by its path, a file would be written from its start
    return FileIO(os.open(path, os.O_WRONLY) if number is None else os.dup(number), "wb")


def resolve_target(path: Path) -> Path:
    """Return the file that is replaced where ``path`` is written: links are followed. Raises OSError for circles."""
    target = Path(os.path.realpath(path))
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_ISLNK(target.lstat().st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target


def draft_beside(target: Path) -> Path:
    """Return a path in the folder of ``target`` that nobody else has, short enough for every file system."""
    return target.with_name(f".facelm-{secrets.token_hex(8)}.tmp")


def place(draft: Path, target: Path) -> None:
    """Move a finished file to its place in the same folder, with the mode and the owner of what is there."""
    with contextlib.suppress(FileNotFoundError):
        status = target.stat()
        if hasattr(os, "chown"):
            with contextlib.suppress(OSError):  # only root may
                os.chown(draft, status.st_uid, status.st_gid)
        draft.chmod(stat.S_IMODE(status.st_mode))
    draft.replace(target)


def _begin(path: Path, leftovers: ExitStack) -> tuple[Path, Path]:
    """Return the file that writing ``path`` replaces, and its draft, in a folder that is made where it is missing.

    ``leftovers`` removes the draft, and the folders that were made if nothing is in them.
    """
    target = resolve_target(path)
    for missing in reversed([folder for folder in target.parents if not folder.exists()]):
        with contextlib.suppress(FileExistsError):  # another has just made it
            missing.mkdir()
            leftovers.callback(_remove, missing)
    if not target.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    draft = draft_beside(target)
    leftovers.callback(_remove, draft)
    return target, draft


def _remove(path: Path) -> None:
    """Remove a file or an empty folder, if it is there and can be removed."""
    with contextlib.suppress(OSError):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


def _back_up(target: Path, backup: Path) -> None:
    """Give what is at ``target`` a second name; on file systems without links, a copy."""
    with contextlib.suppress(FileNotFoundError):  # nothing is there
        try:
            os.link(target, backup)
        except OSError:
            shutil.copy2(target, backup)


def _put_back(target: Path, draft: Path, backup: Path) -> None:
    """Put what was at ``target`` back if its draft has taken its place."""
    if draft.exists():
        _remove(backup)
    elif not backup.exists():
        _remove(target)
    else:
        try:
            backup.replace(target)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}; what stood at {target} is kept as {backup}") from error


def _open_file(path: Path) -> int | None:
    """Return the number of this process's open file that a path leads to, as /dev/stdout and /dev/fd/1 do."""
    folder = os.path.realpath("/dev/fd")
    for _ in range(40):  # as many links as Linux follows
        if path.name.isdecimal() and os.path.realpath(path.parent) == folder:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _read_pipe(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else this waits for a writer, for ever
    with FileIO(descriptor) as pipe:
        first = pipe.read(1 << 16)  # None where there is a writer, but nothing yet
        if first == b"":
            raise OSError(errno.EPIPE, "it is a pipe that nobody writes into")
        os.set_blocking(descriptor, True)
        return (first or b"") + pipe.readall()


def _write_all(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written: {error.strerror or error}")
