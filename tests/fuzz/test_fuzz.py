"""The first inputs of every target: the short run. ``python -m tests.fuzz`` is the long one."""

from __future__ import annotations

import contextlib
import io
import random
import zipfile

import pytest

from . import mutate, seeds
from .targets import TARGETS
from .worker import Worker, each

COUNTS = {"align-picture": 4, "command-line": 6, "openvino-session": 12, "recipe": 10}
COUNT = 40


@pytest.fixture(scope="module")
def worker():
    with Worker() as process:
        yield process


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_first_inputs(worker, name):
    count = COUNTS.get(name, COUNT)
    blocks = list(each(worker, name, 0, count))
    assert not [found for block in blocks for found in block.findings]
    assert sum(block.taken + block.refused for block in blocks) == count


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_seed_is_an_input(name):
    first, second, other = (TARGETS[name].input(seed) for seed in (7, 7, 8))
    assert first.files == second.files and repr(first.arguments) == repr(second.arguments)
    assert first.files != other.files or repr(first.arguments) != repr(other.arguments) or name == "triton-inspect"


def test_sound_files_are_taken(tmp_path):
    """Else nothing but refusals would be tested."""
    from facelm_models.weights import read_official, restore
    from facelm_sdk import read_image
    from facelm_sdk.runtimes.onnxruntime import OrtSession

    for name, data in seeds.pictures().items():
        (tmp_path / name).write_bytes(data)
        assert read_image(tmp_path / name).size
    for name, data in seeds.checkpoints().items():
        (tmp_path / name).write_bytes(data)
        assert read_official(tmp_path / name)
    for name, data in seeds.weights().items():
        (tmp_path / name).write_bytes(data)
        assert restore(tmp_path / name)
    for name, data in seeds.onnx_models().items():
        assert OrtSession(data).spec.name == name


def test_what_goes_wrong_is_found():
    """A worker tells exceptions, changed inputs, drafts, memory and its own death, and goes on after each."""
    with Worker("tests.fuzz.broken") as process:
        blocks = list(each(process, "broken", 0, 7))
    found = {entry["seed"]: entry["signature"] for block in blocks for entry in block.findings}
    assert found == {
        1: "ValueError in the target",
        2: "the input x is changed",
        3: "a file is left behind",
        4: "broken: crash, SIGABRT",
        5: "broken: memory",
    }
    assert sum(block.done for block in blocks) == 7 and sum(block.taken for block in blocks) == 2


def test_mutators_keep_their_format():
    rng = random.Random(1)
    for _ in range(20):
        png = mutate.damaged_png(rng, seeds.pictures()["colour.png"])
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
    opened = 0
    for _ in range(40):
        data = mutate.damaged_zip(rng, seeds.checkpoints()["state.pth"])
        with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(data)) as archive:
            opened += archive.testzip() is None
    assert opened > 20
