"""Checkpoints are read without running what is in them: TorchScript archives, pickles, and damaged files of each."""

from __future__ import annotations

import ast
import pickle
import random
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from facelm_models.weights import WeightsError, read_official

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class Block(nn.Module):
    """As FAN's: norms before convolutions, and perhaps a skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1)) if inputs != outputs else None

    def forward(self, x):
        y = self.conv1(self.bn1(x).relu())
        return y + (x if self.downsample is None else self.downsample(x))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sides, self.scales = [1, 2], [0.5]
        self.stem, self.blocks = nn.Conv2d(3, 4, 7), nn.Sequential(Block(4, 6), Block(6, 6))
        self.register_buffer("mean", torch.arange(6.0).view(2, 3).T)  # not contiguous
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("small", torch.rand(3).half())
        self.register_buffer("part", torch.arange(10.0)[4:6])  # with a storage of ten
        self.register_buffer("empty", torch.zeros(0, 3))
        self.tied = self.stem.weight

    def forward(self, x):
        return self.blocks(self.stem(x)) + self.sides[0] * self.scales[0]


class Evil(nn.Module):
    """Its code writes a file where TorchScript loads it."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target, self.weight = target, torch.zeros(1)

    def forward(self, x):
        return x

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.target, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]):
        self.weight, self.target, self.training = state
        torch.save(self.weight, self.target)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A scripted network's file and its state dict."""
    torch.manual_seed(1)
    script = torch.jit.script(Network())
    path = tmp_path_factory.mktemp("script") / "network.pt"
    script.save(str(path))
    return path, script.state_dict()


def rewritten(source, target, compress=zipfile.ZIP_STORED, **records):
    """The archive with some of its records (``data.pkl``: ``data_pkl``) as given; None leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compress) as new:
        for name in old.namelist():
            key = name.partition("/")[2].replace(".", "_").replace("/", "_")
            content = records.get(key, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def test_the_tensors_are_those_of_the_state_dict(archive):
    path, expected = archive
    state = read_official(path)
    assert sorted(state) == sorted(expected)
    for key, value in expected.items():
        assert state[key].dtype == value.dtype and torch.equal(state[key], value), key


def test_a_module_that_restores_itself_by_code_is_refused(tmp_path):
    path, target = tmp_path / "evil.pt", tmp_path / "written"
    torch.jit.script(Evil(str(target))).save(str(path))
    torch.jit.load(str(path))
    assert target.exists(), "the test's own archive is harmless"
    target.unlink()
    with pytest.raises(WeightsError, match="cannot be read safely"):
        read_official(path)
    assert not target.exists()


class Writes:
    """A pickle that writes a file where it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("kind", ["script", "zip", "legacy"])
def test_a_pickle_that_runs_code_is_refused(archive, tmp_path, kind):
    target, path = tmp_path / "written", tmp_path / "evil.pth"
    content = {"weight": torch.zeros(1), "more": Writes(target)}
    if kind == "script":
        rewritten(archive[0], path, data_pkl=pickle.dumps(Writes(target), 2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(WeightsError, match="cannot be read safely"):
        read_official(path)
    assert not target.exists()


class Whole(nn.Linear):
    """A network saved as a whole, whose class a reader would have to import."""


@pytest.mark.parametrize("kind", ["state", "whole", "script"])
def test_a_refused_file_can_be_saved_anew_by_the_line_that_is_given(tmp_path, kind):
    path = tmp_path / "it's mine.pth"
    torch.manual_seed(1)
    if kind == "script":
        torch.jit.script(Evil(str(tmp_path / "written"))).save(str(path))
    elif kind == "whole":
        torch.save(nn.Linear(2, 3), path)
    else:
        torch.save({"net": {"weight": torch.rand(2)}, "where": Path("here"), "epoch": 3}, path)
    with pytest.raises(WeightsError, match="If you trust where it comes from, save its tensors anew") as caught:
        read_official(path)
    line = str(caught.value).splitlines()[-1].strip()
    subprocess.run(line.replace("python", sys.executable, 1), shell=True, check=True, timeout=120)
    state = read_official(tmp_path / "it's mine_tensors.pth")
    assert set(state) == {"state": {"net"}, "whole": {"weight", "bias"}, "script": set()}[kind]


def test_archives_that_do_not_hold_together(archive, tmp_path):
    source, path = archive[0], tmp_path / "broken.pt"
    with zipfile.ZipFile(source) as whole:
        data = whole.read("network/data.pkl")
    changes = [
        {"data_pkl": None},
        {"data_0": None},
        {"data_pkl": data[:100]},
        {"data_pkl": b""},
        {"data_0": b"12"},
        {"byteorder": b"big"},
        {"data_pkl": pickle.dumps([1, 2], 2)},
        {"data_pkl": data.replace(b"FloatStorage", b"QInt8Storage")},
        {"data_pkl": data.replace(b"_rebuild_tensor_v2", b"_rebuild_qtensor\n#")},
        {"compress": zipfile.ZIP_DEFLATED},
    ]
    for change in changes:
        with pytest.raises(WeightsError, match="cannot be read"):
            read_official(rewritten(source, path, **change))
    loop = b"\x80\x02c__torch__\nA\nq\x00)\x81q\x01}X\x01\x00\x00\x00ah\x01sb."  # a module that holds itself
    with pytest.raises(WeightsError, match="cannot be read safely"):
        read_official(rewritten(source, path, data_pkl=loop))


def test_a_tensor_larger_than_its_storage_is_refused(archive, tmp_path):
    """A stride of 0 would make 10^12 values of one."""
    tensor = (
        b"\x80\x02c__torch__\nA\n)\x81}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n("
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
        b"K\x00%sK\x00\x85\x89ccollections\nOrderedDict\n)RtRsb."
    )
    path = tmp_path / "large.pt"
    fits = rewritten(archive[0], path, data_pkl=tensor % b"K\x01\x85", data_0=bytes(4))
    assert read_official(fits)["a"].shape == (1,)
    with pytest.raises(WeightsError, match="cannot be read safely"):
        read_official(rewritten(archive[0], path, data_pkl=tensor % b"J\x00\x00\x00\x40\x85", data_0=bytes(4)))


@pytest.mark.parametrize("place", [b"r\x00\x00\x00\x0c", b"p200000000\n"], ids=["number", "text"])
def test_a_memo_with_more_places_than_bytes_is_refused(archive, tmp_path, place):
    """Pickle would take gigabytes for it at once."""
    path = rewritten(archive[0], tmp_path / "memo.pt", data_pkl=b"\x80\x02}" + place + b".")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match="cannot be read safely"):
        read_official(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18  # KiB


@pytest.mark.parametrize("kind", ["script", "zip", "legacy"])
def test_damaged_files_raise_nothing_else(archive, tmp_path, kind):
    """Cut short anywhere, or with a few bytes changed; where it is values alone, nobody can tell."""
    path = tmp_path / "damaged.pth"
    if kind == "script":
        whole = archive[0].read_bytes()
    else:
        torch.save(
            {"a": torch.rand(5), "b": {"c": torch.rand(2, 3)}}, path, _use_new_zipfile_serialization=kind == "zip"
        )
        whole = path.read_bytes()
    rng = random.Random(1)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data)
        try:
            read_official(path)
        except WeightsError as error:
            assert str(path) in str(error)


def test_keys_that_are_no_names(tmp_path):
    torch.save({5: torch.zeros(1)}, tmp_path / "numbers.pth")
    with pytest.raises(WeightsError, match="holds 5 in the place of a tensor's name"):
        read_official(tmp_path / "numbers.pth")


def test_no_package_loads_what_could_run():
    """No torch.jit.load, no pickle but between a job's own processes, torch.load with weights_only=True alone."""
    sources = [
        path
        for folder in ("facelm_sdk", "models/facelm_models", "export/facelm_export", "training/facelm_training")
        for path in (ROOT / folder).rglob("*.py")
        if path.parent != ROOT / "facelm_sdk/jobs"
    ]
    assert len(sources) > 80
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in ("torch.jit.load", "pickle.load", "pickle.loads", "jit.load"), path
            if called == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path
