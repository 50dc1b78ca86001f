"""``facelm doctor`` on installations that are broken, and what an Aligner says of them."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from types import ModuleType

import onnxruntime
import pytest
from typer.testing import CliRunner

from facelm_sdk import Aligner, cli, read_image, zoo
from facelm_sdk.cli import doctor as doctoring
from facelm_sdk.errors import InputError, MissingDependencyError, ModelFileError


@pytest.fixture(autouse=True)
def embedded(embed, landmark_model):
    embed(landmark_model())


def doctor():
    """The checks by name, after both forms of the report were printed."""
    text, result = (CliRunner().invoke(cli.app, ["doctor", *options]) for options in ([], ["--json"]))
    assert text.exit_code == result.exit_code and (text.exception is None or isinstance(text.exception, SystemExit))
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert result.exit_code == (not all(check["ok"] for check in checks.values()))
    return checks


HALVES = {
    "an empty folder": None,
    "a package that lacks a part": "from . import gone",
    "a package of another numpy": "raise AttributeError('_ARRAY_API not found')",
    "a package that prints": "print('ERROR'); raise SystemError('check the installation')",
    "a file that is cut off": "def broken(",
}


@pytest.fixture(params=HALVES.values(), ids=HALVES)
def half(request, monkeypatch, tmp_path):
    """Takes the place of a module with what a removed wheel leaves of it."""

    def install(name):
        if request.param is None:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
            return
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(request.param)
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_half_an_onnxruntime(half):
    half("onnxruntime")
    checks = doctor()
    assert not checks["onnxruntime"]["ok"] and "wheels have overwritten each other" in checks["onnxruntime"]["detail"]
    assert checks["OpenCV"]["ok"] and checks["tiny, fp32"]["ok"] and "CPUExecutionProvider" not in checks
    with pytest.raises(MissingDependencyError, match=r"onnxruntime is there, but cannot be used.*Run facelm doctor"):
        Aligner("tiny", None)


def test_half_an_opencv(half):
    half("cv2")
    checks = doctor()
    assert not checks["OpenCV"]["ok"] and "wheels have overwritten each other" in checks["OpenCV"]["detail"]
    assert checks["onnxruntime"]["ok"] and checks["CPUExecutionProvider"]["ok"]
    with pytest.raises(MissingDependencyError, match=r"OpenCV \(cv2\) is there, but cannot be used.*Run facelm doctor"):
        read_image(b"P6 1 1 255\n123")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"5",
        b'{"models": 5}',
        b'{"models": [5]}',
        b'{"models": [{"name": "tiny"}]}',
        b'{"models": [{"name": 1, "file": 2, "sha256": 3, "task": 4}]}',
        b"[" * 100_000,
    ],
    ids=lambda content: content[:30].decode("latin-1"),
)
def test_a_damaged_manifest(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    checks = doctor()
    assert not checks["embedded models"]["ok"] and "reinstall facelm-sdk" in checks["embedded models"]["detail"]
    assert checks["CPUExecutionProvider"]["ok"] and "cache" in checks
    for start in (Aligner, lambda: zoo.resolve("tiny"), zoo.list_models):
        with pytest.raises(ModelFileError, match=r"manifest\.json is damaged .*facelm doctor"):
            start()


def test_a_model_that_cannot_be_read(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert "tiny.onnx cannot be read: Permission denied" in doctor()["tiny, fp32"]["detail"]


@pytest.mark.parametrize("place", ["file", "file/below", "~nobody_of_this_name/cache", "long" * 100, "dangling"])
def test_an_impossible_cache(tmp_path, monkeypatch, place):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("dangling")
    monkeypatch.setenv("FACELM_CACHE", place if place.startswith("~") else str(tmp_path / place))
    check = doctor()["cache"]
    assert not check["ok"] and ("nothing can be cached" in check["detail"] or "set FACELM_CACHE" in check["detail"])


def test_no_cache_that_nobody_asked_for_is_no_problem(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.delenv("FACELM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "file"))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    check = doctor()["cache"]
    assert check["ok"] and "nothing can be cached" in check["detail"]
    monkeypatch.setattr(zoo, "_cache_dir", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(InputError, match="set FACELM_CACHE"):
        zoo.cache_dir()
    assert not doctor()["cache"]["ok"]


def test_paths_that_are_not_utf8_are_printed(tmp_path, monkeypatch):
    monkeypatch.setenv("FACELM_CACHE", f"{tmp_path}/\udcff")
    assert doctor()["cache"]["detail"].startswith(f"{tmp_path}/\\udcff")


def test_damaged_metadata_and_what_else_may_break(monkeypatch):
    def version(wheel):
        if wheel == "opencv-python":
            raise TypeError("expected str")
        if wheel == "onnxruntime":
            return
        raise metadata.PackageNotFoundError(wheel)

    monkeypatch.setattr(doctoring.metadata, "version", version)
    monkeypatch.setattr(doctoring.machine, "int8", lambda: 1 / 0)
    checks = doctor()
    assert checks["OpenCV wheels"]["detail"] == "opencv-python with damaged metadata"
    assert checks["onnxruntime wheels"]["detail"] == "onnxruntime with damaged metadata"
    assert "cannot be checked: ZeroDivisionError" in checks["machine"]["detail"] and "cache" in checks


class Listed(ModuleType):
    """An onnxruntime that lists providers which it cannot use."""

    __file__ = "/wheel/onnxruntime/__init__.py"
    __version__ = "1.31.1"
    SessionOptions = onnxruntime.SessionOptions

    def __init__(self, *providers):
        super().__init__("onnxruntime")
        self.providers = providers
        self.preloaded = 0

    def get_available_providers(self):
        return [*self.providers, "CPUExecutionProvider"]

    def preload_dlls(self):
        sys.stdout.write("Failed to load libcudnn.so.9")
        self.preloaded += 1

    def InferenceSession(self, model, options, **more):
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("libcudnn.so.9", 'libcudnn.so.9 is missing; type: pip install "onnxruntime-gpu[cuda,cudnn]"'),
        ("libcuda.so.1", "libcuda.so.1 is missing; install NVIDIA's driver"),
        ("libnvinfer.so.10", "libnvinfer.so.10 is missing; type: pip install tensorrt"),
        (None, 'its libraries cannot be loaded; type: pip install "onnxruntime-gpu[cuda,cudnn]"'),
    ],
)
def test_what_a_gpu_lacks_is_named(monkeypatch, missing, told):
    def load(path):
        assert path.startswith("/wheel/onnxruntime/capi/libonnxruntime_providers_")
        if missing:
            raise OSError(f"{missing}: cannot open shared object file: No such file or directory")

    listed = Listed("CUDAExecutionProvider", "TensorrtExecutionProvider")
    monkeypatch.setitem(sys.modules, "onnxruntime", listed)
    monkeypatch.setattr(doctoring.ctypes, "CDLL", load)
    monkeypatch.setattr(zoo, "list_models", list)
    checks = {check.name: check for check in doctoring.run_checks()}
    assert checks["CUDAExecutionProvider"].detail == f"listed, but not usable: {told}"
    assert not checks["CUDAExecutionProvider"].ok and checks["TensorrtExecutionProvider"].ok
    assert listed.preloaded == 2


def test_a_driver_without_a_wheel_for_it_is_told(monkeypatch):
    monkeypatch.setattr(doctoring.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("CUDA is there")
    assert doctor()["GPU"]["detail"].endswith('type: pip uninstall onnxruntime; pip install "facelm-sdk[gpu]"')
