"""onnxruntime-web, the runtime of format ``web``: one version of it, from the npm registry, checked and kept."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from facelm_sdk._optional import load_onnxruntime
from facelm_sdk.errors import ChecksumError, MissingDependencyError, ModelFileError
from facelm_sdk.files import write_bytes
from facelm_sdk.zoo import cache_dir

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the archive, in base64, as the registry's ``dist.integrity`` states it."""

VARIABLE = "FACELM_ORT_WEB"
"""The environment variable that names the archive where it is not to be fetched."""

_ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
_PARTS = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    # With WebGPU; the smallest of three such builds. It needs WebAssembly's promise integration.
    "ort.jspi.min.mjs",
    "ort-wasm-simd-threaded.jspi.mjs",
    "ort-wasm-simd-threaded.jspi.wasm",
)


def archive() -> bytes:
    """Return the npm archive: the file that FACELM_ORT_WEB names, the one kept of last time, or ``npm pack``'s.

    Raises MissingDependencyError, with the line to type, where it cannot be had, ModelFileError where the file named
    cannot be read, and ChecksumError where it is another than the pinned one.
    """
    if named := os.environ.get(VARIABLE):
        path = Path(named)
        try:
            data = (path / _ARCHIVE if path.is_dir() else path).read_bytes()
        except OSError as error:
            raise ModelFileError(f"{VARIABLE}={named} cannot be read: {error.strerror or error}") from error
        return _checked(data, f"{VARIABLE}={named}")
    kept = cache_dir() / _ARCHIVE
    if kept.is_file():
        return _checked(kept.read_bytes(), str(kept))
    data = _checked(_packed(), "what npm fetched")
    write_bytes(kept, data)
    return data


def files(data: bytes) -> dict[str, bytes]:
    """Return the parts of the archive that a site needs, with the licence and the notices of ONNX Runtime.

    The archive has neither; those of the Python package, the same project's, are taken.
    """
    with tarfile.open(fileobj=io.BytesIO(data)) as packed:
        members = {name: packed.extractfile(f"package/dist/{name}") for name in _PARTS}
        found = {name: member.read() for name, member in members.items() if member is not None}
    package = Path(load_onnxruntime().__file__).parent
    return found | {name: (package / name).read_bytes() for name in ("LICENSE", "ThirdPartyNotices.txt")}


def _packed() -> bytes:
    """The archive as npm fetches it, by whatever registry and proxy it is set up for."""
    line = f"npm pack onnxruntime-web@{VERSION}"
    elsewhere = f"or, where there is a network, type: {line} and here {VARIABLE}=PATH/{_ARCHIVE}"
    npm = shutil.which("npm")
    if npm is None:
        raise MissingDependencyError(
            f"the web format takes onnxruntime-web by npm, which is not here; install Node.js, {elsewhere}"
        )
    with tempfile.TemporaryDirectory() as folder:
        words = [npm, "pack", f"onnxruntime-web@{VERSION}", "--ignore-scripts", "--pack-destination", folder]
        done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
        path = Path(folder) / _ARCHIVE
        if done.returncode or not path.is_file():
            why = next((one for one in done.stderr.splitlines() if "error" in one.lower()), "no file came")
            raise MissingDependencyError(f"{line} failed ({why.strip()}); {elsewhere}")
        return path.read_bytes()


def _checked(data: bytes, what: str) -> bytes:
    found = base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != SHA512:
        raise ChecksumError(f"{what} is not onnxruntime-web {VERSION}: its sha512 is {found}, expected {SHA512}")
    return data
