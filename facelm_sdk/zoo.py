"""Model names -> files: the embedded models and their checksums, and models of the user's own by path."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import astuple, dataclass
from pathlib import Path

from ._json import parse
from .errors import ChecksumError, InputError, ModelFileError, UnknownModelError
from .files import expand_user, is_file

LANDMARKS = "pyramid_m"
"""The embedded landmark model that is taken where none is named."""
DETECTOR = "retinaface_lite"
"""The embedded detector that is taken where none is named."""

WEIGHTS = Path(__file__).parent / "weights"
"""Where the embedded models lie, beside their manifest."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One line of the manifest of embedded models."""

    name: str
    file: str
    sha256: str
    task: str
    precision: str = "fp32"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that was found; ``sha256`` is the one it was checked against, or None."""

    path: Path
    name: str
    sha256: str | None


def list_models() -> list[ModelEntry]:
    """The models inside the package. Raises ModelFileError where their manifest is damaged."""
    manifest = WEIGHTS / "manifest.json"
    if not manifest.is_file():
        return []
    try:
        entries = [ModelEntry(**entry) for entry in parse(manifest.read_text("utf-8"))["models"]]
        if not all(isinstance(value, str) for entry in entries for value in astuple(entry)):
            raise TypeError("an entry is not text")
        if odd := [entry.file for entry in entries if re.fullmatch(r"[\w.-]{1,200}", entry.file, re.ASCII) is None]:
            raise ValueError(f"{odd[0]!r} is no name of a file")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelFileError(
            f"the package's {manifest.name} is damaged ({error}); reinstall facelm-sdk (facelm doctor tells the rest)"
        ) from error
    return entries


def resolve(
    name_or_path: str | os.PathLike[str], sha256: str | None = None, *, variant: str | None = None
) -> ModelFile:
    """The file of an embedded model's name, or of a path that ends in .onnx.

    ``variant``: which file of an embedded model that comes in several, fp32 (default) or another. A path is one file.

    Embedded files are checked against the manifest, any file against ``sha256`` where it is given. Raises
    UnknownModelError, ModelFileError (no such file) or ChecksumError.
    """
    text = os.fspath(name_or_path)
    if text.lower().endswith(".onnx"):
        path = expand_user(text)
        if not is_file(path):
            raise ModelFileError(f"no model file {text}")
        if sha256 is not None:
            verify(path, sha256)
        return ModelFile(path, path.stem, sha256)
    entries = list_models()
    named = {entry.precision: entry for entry in entries if entry.name == text}
    if not named:
        known = ", ".join(dict.fromkeys(entry.name for entry in entries)) or "none"
        raise UnknownModelError(
            f"no embedded model {text!r}; there are: {known}; any other is the path to an .onnx, such as facelm-export "
            "makes of the networks it lists"
        )
    variant = variant or "fp32"
    if variant not in named:
        raise UnknownModelError(f"{text} is embedded in {', '.join(named)}, not in {variant}")
    entry = named[variant]
    path = WEIGHTS / entry.file
    if not path.is_file():
        raise ModelFileError(
            f"the file {entry.file} of model {text!r} is missing from the package; reinstall facelm-sdk"
        )
    for digest in {entry.sha256, sha256 or entry.sha256}:
        verify(path, digest)
    return ModelFile(path, entry.name, entry.sha256)


def verify(path: Path, sha256: str) -> None:
    """Raise ChecksumError unless the file has that sha256 (hexadecimal), ModelFileError where it cannot be read."""
    import hashlib

    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from error
    if found != sha256.lower():
        raise ChecksumError(
            f"{path.name} has sha256 {found}, expected {sha256}: the file is damaged or another version"
        )


def cache_dir() -> Path:
    """Where cached files go: ``FACELM_CACHE``, or ``facelm`` in the platform's cache folder. Nothing is created.

    Raises InputError where the system tells no home folder.
    """
    try:
        return _cache_dir()
    except RuntimeError as error:
        raise InputError(f"there is no cache folder ({error}); set FACELM_CACHE to one") from error


def _cache_dir() -> Path:
    if configured := os.environ.get("FACELM_CACHE"):
        return Path(configured).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "facelm"
