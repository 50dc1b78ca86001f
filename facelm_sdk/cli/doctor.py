"""``facelm doctor``: what is installed, what really works, and what stands in each other's way."""

from __future__ import annotations

import base64
import ctypes
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import machine, zoo
from .._optional import load_cv2, load_onnxruntime
from ..errors import FacelmError, MissingDependencyError, OutputError
from ..files import check_place
from ..runtimes.base import PROVIDERS
from ..runtimes.onnxruntime import INSTALLS, loading_gpu

# Wheels that install into the same folder, so that the last one installed overwrites the others.
_RIVALS = {
    "onnxruntime": (
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-directml",
        "onnxruntime-openvino",
        "onnxruntime-qnn",
        "onnxruntime-silicon",
        "ort-nightly",
        "ort-nightly-gpu",
    ),
    "OpenCV": (
        "opencv-python",
        "opencv-python-headless",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    ),
}

# An ONNX model of one node, z (2, 2) = x (2, 2) @ x: enough to make a provider show that it can compute.
_TINY_MODEL = base64.b64decode(
    "CAcSADpAChEKAXgKAXgSAXoiBk1hdE11bBIBZ1oTCgF4Eg4KDAgBEggKAggCCgIIAmITCgF6Eg4KDAgBEggKAggCCgIIAkIECgAQDQ=="
)


CUDA = PROVIDERS["cuda"]

_DAMAGED = "with damaged metadata"

# Every GPU wheel lists it, and it needs TensorRT, which few install.
_MAY_FAIL = ("TensorrtExecutionProvider",)

_LIBRARIES = {
    "CUDAExecutionProvider": "libonnxruntime_providers_cuda.so",
    "TensorrtExecutionProvider": "libonnxruntime_providers_tensorrt.so",
}
"""What onnxruntime loads for a provider, on Linux."""
_MENDS = (
    ("libcuda.", "install NVIDIA's driver"),
    ("libnvinfer", "type: pip install tensorrt"),
    ("", 'type: pip install "onnxruntime-gpu[cuda,cudnn]"'),
)
"""How what is missing begins, and what brings it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; ``ok`` is False for a problem that should be mended."""

    name: str
    detail: str
    ok: bool = True


def doctor(
    measure: Annotated[
        bool, typer.Option("--measure", help="Also time every way to run the models, for some 20 seconds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Look over the installation; exit code 1 where something should be mended."""
    with redirect_stdout(sys.stderr):  # a package that is half installed may print while it is imported
        checks = run_checks()
        checks += _told("fastest way", _measured) if measure else _told("fastest way", _not_measured)
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], ensure_ascii=False, indent=1))
    else:
        table = Table(show_header=False, box=None)
        for check in checks:
            table.add_row("[green]ok[/]" if check.ok else "[red]problem[/]", check.name, escape(check.detail))
        Console(highlight=False).print(table)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def run_checks() -> list[Check]:
    """All checks. Works without onnxruntime and OpenCV, and raises nothing."""
    return [check for name, checks in _CHECKS.items() for check in _told(name, checks)]


def _told(name: str, checks: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The checks, and one more where they end with an error."""
    try:
        for check in checks():
            yield Check(check.name, _printable(check.detail), check.ok)
    except Exception as error:  # whatever is broken here must not hide the rest
        detail = str(error) if isinstance(error, FacelmError) else f"cannot be checked: {error!r}"
        yield Check(name, _printable(detail), ok=False)


def _printable(text: str) -> str:
    """The text with bytes of paths that are not UTF-8 spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _python() -> Iterator[Check]:
    yield Check("python", f"{platform.python_version()} ({sys.executable})")
    yield Check("platform", platform.platform())
    yield Check("numpy", np.__version__)


def _package() -> Iterator[Check]:
    from .. import __version__

    yield Check("facelm-sdk", __version__)


def _opencv() -> Iterator[Check]:
    yield Check("OpenCV", load_cv2().__version__)


def _onnxruntime() -> Iterator[Check]:
    yield Check("onnxruntime", load_onnxruntime().__version__)


def _rivals() -> Iterator[Check]:
    for name, wheels in _RIVALS.items():
        found = [f"{wheel} {version}" for wheel in wheels if (version := _installed(wheel)) is not None]
        if len(found) > 1:
            detail = f"{', '.join(found)} overwrite each other; uninstall all of them and install one"
            yield Check(f"{name} wheels", detail, ok=False)
        else:
            yield Check(f"{name} wheels", found[0] if found else "none")


def _installed(wheel: str) -> str | None:
    try:
        return metadata.version(wheel) or _DAMAGED
    except metadata.PackageNotFoundError:
        return None
    except Exception:  # a part of it is left
        return _DAMAGED


def _providers() -> Iterator[Check]:
    try:
        available = load_onnxruntime().get_available_providers()
    except MissingDependencyError:
        return  # told among the versions
    if CUDA not in available and (Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")):
        yield Check("GPU", f"there is an NVIDIA driver, but {CUDA} is not in this onnxruntime{INSTALLS[CUDA]}")
    for provider in available:
        problem = _provider_problem(provider)
        yield Check(provider, problem or "works", ok=problem is None or provider in _MAY_FAIL)


def _provider_problem(provider: str) -> str | None:
    """Why a provider cannot compute, or None when it can."""
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        with loading_gpu(ort) if provider in _LIBRARIES else nullcontext():
            session = ort.InferenceSession(_TINY_MODEL, options, providers=[provider], enable_fallback=0)
        if provider not in session.get_providers():
            return f"listed, but not usable: {_missing_library(ort, provider)}"
        x = np.array([[1, 2], [3, 4]], np.float32)
        (z,) = session.run(None, {"x": x})
    except Exception as error:
        return f"listed, but not usable: {str(error).strip().splitlines()[0]}"
    return None if np.allclose(z, x @ x, rtol=1e-2) else f"computes wrong numbers: {z.tolist()}"


def _missing_library(ort: Any, provider: str) -> str:
    """Return what keeps the libraries of a provider from being loaded, and what to type."""
    if provider not in _LIBRARIES:
        return "its libraries cannot be loaded"
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / _LIBRARIES[provider]))
    except OSError as error:
        name, _, cause = str(error).partition(":")
        if "cannot open shared object" in cause:
            mend = next(line for beginning, line in _MENDS if name.startswith(beginning))
            return f"{name} is missing; {mend}"
    return f"its libraries cannot be loaded; {_MENDS[-1][1]}"


def _models() -> Iterator[Check]:
    entries = zoo.list_models()
    if not entries:
        yield Check("embedded models", "none in this package", ok=False)
    for entry in entries:
        try:
            zoo.resolve(entry.name, variant=entry.precision)
            yield Check(f"{entry.name}, {entry.precision}", "sha256 matches")
        except FacelmError as error:
            yield Check(f"{entry.name}, {entry.precision}", str(error), ok=False)


def _machine() -> Iterator[Check]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS")
    suffix = f", OMP_NUM_THREADS={threads}" if threads else ""
    yield Check("CPU threads", f"{usable} usable of {os.cpu_count()}{suffix}")
    int8 = machine.int8()
    kind = "int8, which this processor is fast at" if int8.fast else "fp32: no fast int8 is known of this processor"
    yield Check("embedded models run in", f"{kind} ({int8.told})")


def _not_measured() -> Iterator[Check]:
    yield Check("fastest way", "not measured; type: facelm doctor --measure (facelm bench --all has the table)")


def _measured() -> Iterator[Check]:
    from ..fastest import fastest  # it opens what may be broken here

    ways = fastest()
    for way in ways.ways:
        faster = "busy" if way.times_as_fast is None else f"{way.times_as_fast:.2f} times as fast as Aligner()"
        yield Check(way.name, f"{way.ms['median']:.3g} ms a picture of 640x480 with one face; {faster}")
    yield Check("fastest way", ways.advice)


def _cache() -> Iterator[Check]:
    cache = zoo.cache_dir()
    try:
        check_place(cache / "file")
    except OutputError as error:
        # Where nobody chose it, as for a user without a home, nothing is amiss until something is to be cached.
        yield Check("cache", f"nothing can be cached: {error}", ok="FACELM_CACHE" not in os.environ)
    else:
        yield Check("cache", f"{cache} ({'exists' if cache.is_dir() else 'not there; nothing is cached so far'})")


_CHECKS = {
    "python": _python,
    "facelm-sdk": _package,
    "OpenCV": _opencv,
    "onnxruntime": _onnxruntime,
    "wheels": _rivals,
    "providers": _providers,
    "embedded models": _models,
    "machine": _machine,
    "cache": _cache,
}
