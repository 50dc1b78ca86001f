"""A landmark network of the user's own: registered, exported and run, as examples/custom_model.py shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from facelm_export import export
from facelm_models import Decoder, ModelInfo, register_decoder, registry
from facelm_models.weights import save
from facelm_sdk import Landmarker
from facelm_sdk.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "custom_model.py"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The example, run in a folder of its own; then the command line, which imports it."""
    folder = tmp_path_factory.mktemp("custom")
    paths = [str(ROOT / part) for part in (".", "models", "export")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}

    def python(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    main = "from facelm_export.cli import main; main()"
    options = ("--model", "my_net", "--weights", "my_net.safetensors", "--no-latency", "-o", "again/")
    example = python(EXAMPLE)
    line = python("-c", main, "--import", str(EXAMPLE), *options)
    return SimpleNamespace(folder=folder, example=example, line=line)


def test_the_example_is_short():
    assert len(EXAMPLE.read_text("utf-8").splitlines()) < 40


def test_the_example_gets_export_report_and_runtime(ran):
    assert "# my_net_fp32.onnx" in ran.example and "## Parity with PyTorch fp32" in ran.example
    assert "facelm-export --import custom_model.py --model my_net --weights my_net.safetensors" in ran.example
    assert ran.example.splitlines()[-1].endswith("(68, 2)"), "one face of the portrait"
    points = Landmarker(ran.folder / "my_net_fp32.onnx")(np.zeros((2, 96, 96, 3), np.uint8))
    assert points.shape == (2, 68, 2)


def test_the_command_line_imports_it(ran):
    assert "again/my_net_fp32.onnx" in ran.line
    one, other = (Landmarker(ran.folder / path / "my_net_fp32.onnx") for path in ("", "again"))
    crops = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), np.uint8)
    assert np.array_equal(one(crops), other(crops)) and one.spec.weights_sha256 == other.spec.weights_sha256


@dataclass(frozen=True)
class Config:
    size: int = 32
    num_landmarks: int = 68
    heatmaps: bool = False


class Network(nn.Module):
    """Coordinates or heatmaps of as many points as its config says."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.features = nn.Conv2d(3, 4, 3, 2, 1)
        points = config.num_landmarks
        self.head = nn.Conv2d(4, points, 1) if config.heatmaps else nn.Linear(4 * 16 * 16, points * 2)

    def forward(self, crops):
        x = self.features(crops)
        return self.head(x) if self.config.heatmaps else self.head(x.flatten(1)).view(-1, self.config.num_landmarks, 2)


@pytest.fixture
def register(monkeypatch):
    """Registers a model for one test."""
    registry._load_architectures()
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))

    def add(build, config, **options):
        values = {"input_size": 32, "channels": "bgr", "mean": (0.0,) * 3, "std": (255.0,) * 3, **options}
        return registry.register(ModelInfo("own", "landmarks", build, config, **values))

    return add


def test_a_heatmap_network_takes_its_points_from_the_markup(register, tmp_path):
    config = Config(num_landmarks=98, heatmaps=True)
    register(Network, config, decoding="local_soft_argmax")
    torch.manual_seed(0)
    save(tmp_path / "own.safetensors", Network(config), {"markup": "wflw98"})
    done = export("own", weights=tmp_path / "own.safetensors", flip=True, latency=False, out=tmp_path)
    points, scores, _ = Landmarker(done.path).run(np.zeros((3, 32, 32, 3), np.uint8))
    assert points.shape == (3, 98, 2) and scores.shape == (3, 98)
    assert done.spec.markup == "wflw98" and done.spec.parity["max_px"] < 0.02


def test_a_decoder_can_be_chosen(register, tmp_path):
    config = Config(heatmaps=True)
    register(Network, config, decoding="local_soft_argmax")
    save(tmp_path / "own.safetensors", Network(config), {})
    default, other = (
        export("own", weights=tmp_path / "own.safetensors", latency=False, out=tmp_path / f"{name}.onnx", **options)
        for name, options in (("default", {}), ("other", {"decoding": "argmax"}))
    )
    assert "Softmax" in operators(default.path) and "Softmax" not in operators(other.path)


class ScoredOffsets(nn.Module):
    """A score map and two maps of offsets for each point: (n, 3 L, h, w)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3 * config.num_landmarks, 1))

    def forward(self, crops):
        return self.layers(crops)


def decode_offsets(maps):
    """The largest score's cell and, in cells, the offsets there; its sigmoid is the point's score."""
    logits, *offsets = maps.unflatten(1, (3, -1)).flatten(3).unbind(1)  # (n, L, h w) each
    peak, index = logits.max(-1, keepdim=True)
    h, w = maps.shape[-2:]
    dx, dy = (offset.gather(2, index)[..., 0] for offset in offsets)
    x, y = index[..., 0] % w + 0.5 + dx, index[..., 0] // w + 0.5 + dy
    return torch.stack([x / w, y / h], -1), peak[..., 0].sigmoid()


def test_a_decoding_of_ones_own_takes_one_call(register, monkeypatch, tmp_path):
    """Registered, and then an export in half precision too, a card and the runtime know it."""
    registry.list_decoders()
    monkeypatch.setattr(registry, "_decoders", dict(registry._decoders))
    register_decoder(Decoder("offsets", decode_offsets, has_scores=True, takes="(n, 3 L, h, w) scores and offsets"))
    register(ScoredOffsets, Config(), decoding="offsets")
    torch.manual_seed(0)
    network = ScoredOffsets(Config()).eval()
    save(tmp_path / "own.safetensors", network, {"decoding": "offsets"})
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    with torch.no_grad():
        points, scores = decode_offsets(network(torch.from_numpy(crops).permute(0, 3, 1, 2) / 255))
    for precision in ("fp32", "fp16"):
        options = {"precision": precision, "atol": 40.0, "latency": False, "out": tmp_path}  # random peaks may swap
        done = export("own", weights=tmp_path / "own.safetensors", **options)
        assert done.spec.has_scores and done.spec.precision == precision
        found, found_scores, _ = Landmarker(done.path).run(crops)
        close = np.abs(found - (32 * points.numpy() - 0.5)).max(-1) < (1e-3 if precision == "fp32" else 0.05)
        assert close.mean() > (0.999 if precision == "fp32" else 0.9)
        assert np.abs(found_scores - scores.numpy()).max() < 5e-3
    with pytest.raises(InputError, match=r"does not give \(n, L, h, w\) heatmaps, which decoding 'argmax' takes"):
        export("own", random=True, decoding="argmax")


def test_a_card_of_a_decoding_that_nobody_registered(register, tmp_path):
    register(Network, Config())
    save(tmp_path / "own.safetensors", Network(Config()), {"decoding": "offsets"})
    with pytest.raises(InputError, match=r"'offsets'; decodings: coordinates.*facelm_models\.register_decoder"):
        export("own", weights=tmp_path / "own.safetensors")


def operators(file):
    return {node.op_type for node in onnx.load(file).graph.node}


class Broken(nn.Module):
    """Does not take crops of the size it is registered with."""

    def __init__(self, config: object) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, crops):
        return self.linear(crops)


@pytest.mark.parametrize(
    ("build", "config", "options", "message"),
    [
        (
            lambda config: Network(Config(num_landmarks=5)),
            None,
            {},
            r"own gives \(1, 5, 2\).*takes \(n, L, 2\) fractions of the crop with L = 68, as ibug68 has",
        ),
        (Network, Config(heatmaps=True), {}, r"own gives \(1, 68, 16, 16\).*'coordinates' takes \(n, L, 2\)"),
        (Network, Config(), {"decoding": "argmax"}, r"own gives \(1, 68, 2\).*'argmax' takes \(n, L, h, w\) heatmaps"),
        (Broken, None, {}, r"own does not run on float \(1, 3, 32, 32\)"),
        (lambda config: "network", None, {}, "build of own gives no torch.nn.Module with parameters: 'network'"),
    ],
)
def test_a_network_that_is_not_what_its_registration_says(register, build, config, options, message):
    register(build, config, **options)
    with pytest.raises(InputError, match=message):
        export("own", random=True)


def test_weights_of_a_network_whose_build_is_a_function(register, tmp_path):
    """What a card says of the class is compared with a class only."""
    register(lambda config: Network(config), Config())
    save(tmp_path / "own.safetensors", Network(Config()), {})
    done = export("own", weights=tmp_path / "own.safetensors", latency=False, out=tmp_path)
    assert done.spec.name == "own"
