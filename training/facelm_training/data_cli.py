"""``facelm data``: where each data set is had, and its archives laid out as the readers want them."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Annotated

import typer

from facelm_sdk.cli.options import counted
from facelm_sdk.errors import InputError, OutputError
from facelm_sdk.files import check_place, draft_beside

if TYPE_CHECKING:
    from .datasets import Info


def data_command(
    name: Annotated[str | None, typer.Argument(help="A data set; without one, all of them are listed.")] = None,
    archives: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="What you downloaded: .zip, .tar.gz, .mat files.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where to lay them out.")] = None,
) -> None:
    """Say where the data sets are had, and lay out what you downloaded for `facelm eval` and `facelm train`.

    Nothing is downloaded, and no file that is there is written over; what was begun goes on when called again.
    """
    from .datasets import READERS

    if name is None:
        for info in READERS.values():
            typer.echo(f"{info.name:12}{info.markup:8}{_faces(info):>7} faces  {info.home}")
        return
    if name not in READERS:
        raise InputError(f"no data set {name!r}; there are {', '.join(READERS)}")
    info = READERS[name]
    if not archives:
        counts = ", ".join(f"{split} {one.subsets['full']:,}" for split, one in info.splits.items())
        rows = {"points": info.markup, "faces": counts, "from": info.home, "terms": info.terms, "files": info.layout}
        for label, text in rows.items():
            typer.echo(f"{label:8}{text}")
        return
    if out is None:
        raise InputError("where should they go? Add -o DIR")
    check_place(out / "file")
    for archive in archives:
        written, kept = _lay_out(info, archive, out)
        typer.echo(f"{archive}: {counted(written, 'file')} into {out}{f', {kept} were there' if kept else ''}")
    _tell(info, out)


def _faces(info: Info) -> int:
    return sum(split.subsets["full"] for split in info.splits.values())


def _tell(info: Info, folder: Path) -> None:
    """What of the data set can be read now. Exit code 1 where it is nothing."""
    from . import datasets

    readable = False
    for split, described in info.splits.items():
        try:
            found = len(datasets.open(f"{info.name}/{split}:{folder}"))
        except InputError as error:
            typer.echo(f"{info.name}/{split}: {error}")
            continue
        readable = True
        whole = described.subsets["full"]
        typer.echo(f"{info.name}/{split}: {counted(found, 'face')}{'' if found == whole else f' of {whole}'}")
    if not readable:
        raise typer.Exit(1)


def _lay_out(info: Info, archive: Path, folder: Path) -> tuple[int, int]:
    """Write the files of an archive, or the file itself, below ``folder``: how many, and how many were there."""
    try:
        if not (zipfile.is_zipfile(archive) or tarfile.is_tarfile(archive)):
            if archive.suffix.lower() not in (".mat", ".npz"):
                raise InputError(f"{archive} is no archive; accepted are .zip, .tar and .tar.gz, and .mat files")
            with archive.open("rb") as source:
                new = _write(source, folder / archive.name)
            return int(new), int(not new)
        taken_off, added = _beginning(info, archive)
        written = [_write(source, Path(folder, added, *path.parts[taken_off:])) for path, source in _contents(archive)]
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(f"{archive} cannot be unpacked; it is damaged or has a password ({error})") from error
    except OutputError:
        raise
    except OSError as error:
        raise InputError(f"{archive} cannot be read: {error.strerror or error}") from error
    return sum(written), len(written) - sum(written)


def _beginning(info: Info, archive: Path) -> tuple[int, str]:
    """How many folders to take off the paths of an archive, and which one to put before them.

    A folder that is not in the layout and holds all the rest is taken off; what lacks the folder of the layout that the
    archive is named after gets it.
    """
    paths = [path for path, _ in _contents(archive)]
    tops, stem = {path.parts[0] for path in paths}, archive.name.partition(".")[0]
    if stem in info.tops and stem not in tops:
        return 0, stem
    holds_all = len(tops) == 1 and all(len(path.parts) > 1 for path in paths)
    return int(bool(info.tops) and holds_all and not tops & set(info.tops)), ""


def _contents(archive: Path) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """The files of an archive. Raises InputError where one would lie outside of the folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                if not entry.is_dir() and (path := _inside(archive, entry.filename)) is not None:
                    with packed.open(entry) as source:
                        yield path, source
        return
    with tarfile.open(archive) as tape:
        for member in tape:
            file = tape.extractfile(member) if member.isfile() else None
            if file is not None and (path := _inside(archive, member.name)) is not None:
                yield path, file


def _inside(archive: Path, name: str) -> PurePosixPath | None:
    """The path of an entry; None for what macOS adds."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise InputError(f"{archive} has an entry {name!r} that would lie outside of the folder: it is not unpacked")
    return None if path.parts[0] == "__MACOSX" or path.name.startswith("._") else path


def _write(source: IO[bytes], target: Path) -> bool:
    """Write a file whole, unless there is one; whether there was none."""
    if target.exists():
        return False
    draft = draft_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("xb") as file:
            shutil.copyfileobj(source, file)
        draft.replace(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return True
