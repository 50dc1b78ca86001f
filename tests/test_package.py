"""What a user installs: the wheel holds every package, the weights and nothing that is not ours."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel):
    top = {name.split("/")[0] for name in wheel.namelist()}
    packages = {"facelm_sdk", "facelm_models", "facelm_export", "facelm_training"}
    assert {name for name in top if not name.endswith(".dist-info")} == packages
    for package, folder in (
        ("facelm_sdk", "."),
        ("facelm_models", "models"),
        ("facelm_export", "export"),
        ("facelm_training", "training"),
    ):
        sources = {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder / package).rglob("*.py")}
        assert sources, package
        assert sources <= set(wheel.namelist())
        assert f"{package}/py.typed" in wheel.namelist()


def test_the_wheel_holds_the_weights_as_the_manifest_says(wheel):
    models = json.loads(wheel.read("facelm_sdk/weights/manifest.json"))["models"]
    assert {model["name"] for model in models} == {"lotr_m", "pyramid_m", "retinaface_lite", "retinaface_mnet025"}
    for model in models:
        data = wheel.read(f"facelm_sdk/weights/{model['file']}")
        assert hashlib.sha256(data).hexdigest() == model["sha256"]
    assert not any(name.endswith(".safetensors") for name in wheel.namelist()), "those are facelm-weights'"
    assert "facelm_export/assets/collins.jpg" in wheel.namelist()
    web = {f"facelm_export/assets/web/{path.name}" for path in (ROOT / "export/facelm_export/assets/web").iterdir()}
    assert "facelm_export/assets/web/facelm.js" in web and web <= set(wheel.namelist())


def test_the_wheel_holds_the_schema(wheel):
    assert (
        wheel.read("facelm_sdk/interop/faces.schema.json")
        == (ROOT / "facelm_sdk/interop/faces.schema.json").read_bytes()
    )


def test_the_weights_are_a_wheel_of_their_own(tmp_path):
    """Each with its card, found where the wheel is installed and there is no checkout."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run([*command, str(ROOT / "models/weights")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("facelm_weights-*.whl")
    assert path.stat().st_size < 100 * 2**20, "PyPI takes no larger file: store a network in fp16"
    with zipfile.ZipFile(path) as wheel:
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
        wheel.extractall(tmp_path / "site")
    checkpoints = {Path(name).stem for name in files if name.endswith(".safetensors")}
    assert {"lotr_m", "lotr_m_128", "pyramid_m", "retinaface_lite", "retinaface_mnet025"} <= checkpoints
    assert {f"facelm_weights/{name}.md" for name in checkpoints} <= files and "facelm_weights/LICENSE-WEIGHTS" in files
    assert all(name.startswith("facelm_weights/") for name in files)
    assert not any(name.endswith((".jpg", ".png")) for name in files), "the cards' pictures are the repository's"
    (tmp_path / "site" / "facelm_models").symlink_to(ROOT / "models/facelm_models")
    (tmp_path / "site" / "facelm_sdk").symlink_to(ROOT / "facelm_sdk")
    code = (
        "from pathlib import Path; from facelm_models import catalogue; catalogue.CHECKOUT = Path('nowhere'); "
        "print(catalogue.checkpoint('lotr_m_128')); print(catalogue.checkpoint('slpt_resnet34'))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [str(tmp_path / "site/facelm_weights/lotr_m_128.safetensors"), "None"], done.stderr


def test_the_wheel_holds_the_recipes(wheel):
    configs = ROOT / "training/facelm_training/configs"
    recipes = {path.relative_to(ROOT / "training").as_posix() for path in configs.rglob("*.toml")}
    assert "facelm_training/configs/papers/slpt_hrnet18_wflw.toml" in recipes
    assert recipes <= set(wheel.namelist())


def test_entry_points(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    text = wheel.read(name).decode()
    for line in (
        "facelm = facelm_sdk.cli:main",
        "facelm-export = facelm_export.cli:main",
        "export = facelm_export.cli:app",
        "eval = facelm_training.eval_cli:eval_command",
        "train = facelm_training.cli:train_command",
        "study = facelm_training.study.cli:study_command",
        "release = facelm_training.release:release_command",
    ):
        assert line in text.splitlines()


def test_extras_keep_the_colliding_wheels_apart(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    needs = [line for line in wheel.read(name).decode().splitlines() if line.startswith("Requires-Dist:")]
    hard = [line for line in needs if "extra ==" not in line]
    assert not any("opencv" in line or "onnxruntime" in line or "torch" in line for line in hard)
    for extra in ("cpu", "cpu-headless", "gpu", "gpu-headless"):
        chosen = [line for line in needs if f"extra == '{extra}'" in line]
        assert len(chosen) == 2, chosen


def test_the_licence_of_the_code_and_the_terms_of_the_weights_are_told_apart(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    lines = wheel.read(metadata).decode().partition("\n\n")[0].splitlines()
    assert "License-Expression: MIT" in lines
    assert {line for line in lines if line.startswith("License-File:")} == {
        "License-File: LICENSE",
        "License-File: LICENSE-WEIGHTS",
    }
