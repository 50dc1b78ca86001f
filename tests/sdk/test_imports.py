"""What importing costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "onnx",
    "typer",
    "rich",
    "PIL",
    "click",
    "pydantic",
    "scipy",
    "skimage",
    "matplotlib",
    "pandas",
    "pyarrow",
)

ABOVE = {"facelm_models", "facelm_export", "facelm_training"}


def loaded_by(code):
    script = f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(output.stdout.split())


def test_importing_the_package_loads_next_to_nothing():
    loaded = loaded_by("import facelm_sdk")
    assert not loaded & {*HEAVY, "numpy", "cv2", "onnxruntime"}


def test_everything_loads_nothing_heavy():
    code = "import facelm_sdk\nfor name in facelm_sdk.__all__: getattr(facelm_sdk, name)"
    loaded = loaded_by(code)
    assert "numpy" in loaded
    assert not loaded & set(HEAVY)
    assert not loaded & ABOVE


def test_running_a_model_loads_nothing_heavy(landmark_model, detector_model):
    code = f"""
import numpy as np
from facelm_sdk import Aligner
Aligner({str(landmark_model())!r}, {str(detector_model())!r})(np.full((64, 64, 3), 255, np.uint8))[0].to_dict()
"""
    assert not loaded_by(code) & set(HEAVY)


def test_onnxruntime_reports_nothing(landmark_model, tmp_path):
    """It keeps what it would report in a cache folder, and no other file is written here."""
    code = f"from facelm_sdk import Landmarker\nLandmarker({str(landmark_model())!r})"
    hidden = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_are_attribute_errors():
    import facelm_sdk

    assert {"Aligner", "ModelSpec", "markup"} <= set(dir(facelm_sdk))
    with pytest.raises(AttributeError, match="Alligner"):
        _ = facelm_sdk.Alligner


def imported(path):
    """The top-level packages a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0]


def test_the_runtime_never_imports_torch():
    for path in sorted((ROOT / "facelm_sdk").rglob("*.py")):
        assert not set(imported(path)) & {"torch", "onnx", "torchvision"}, path.name
