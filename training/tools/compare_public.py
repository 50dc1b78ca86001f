"""Compare networks of this project with the public code of the same, on identical weights.

``python training/tools/compare_public.py SOURCE CHECKOUT [--weights FILE] [--picture FILE] [--out FILE.json]``

SOURCE names the code as ``facelm-export --from`` does; CHECKOUT is a folder that holds it:

    slpt            github.com/Jiahao-UTS/SLPT-master
    hrnet           github.com/HRNet/HRNet-Facial-Landmark-Detection
    star            github.com/ZhenglinZhou/STAR
    fan             github.com/1adrianb/face-alignment
    retinaface      github.com/biubug6/Pytorch_Retinaface
    retinaface_1mb  github.com/biubug6/Face-Detector-1MB-with-landmark

**The code in CHECKOUT is run.** Without --weights its network has random ones, batch norm's statistics too; its state
dict is loaded here through the table of its keys, and both networks see the same noise, or --picture as it is. What
comes out is compared, everything that the loss sees. FILE.json gathers the runs of all sources.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import types
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

from facelm_models import create, load, official
from facelm_models.weights import read_official
from facelm_sdk.errors import InputError
from facelm_sdk.files import write_bytes
from facelm_sdk.images.read import read_image

Outputs = list[torch.Tensor]
Gives = Callable[[Any, torch.Tensor], Outputs]
Pair = tuple[str, nn.Module, Gives, nn.Module, Gives]
"""A name; their network and what it gives; ours and the same."""


class Node(dict[str, Any]):
    """A configuration whose entries are attributes, too, as yacs has them."""

    __getattr__ = dict.__getitem__


def hrnet_config(modules: tuple[int, int, int]) -> Node:
    """HRNet-W18 as both codes that have it are configured."""
    stages = {}
    for i, count in enumerate(modules):
        widths = [18 * 2**branch for branch in range(i + 2)]
        stages[f"STAGE{i + 2}"] = Node(
            NUM_MODULES=count,
            NUM_BRANCHES=i + 2,
            NUM_BLOCKS=[4] * (i + 2),
            NUM_CHANNELS=widths,
            BLOCK="BASIC",
            FUSE_METHOD="SUM",
        )
    extra = Node(stages, FINAL_CONV_KERNEL=1, STEM_INPLANES=64, PRETRAINED_LAYERS=["*"], WITH_HEAD=True)
    return Node(EXTRA=extra, NUM_JOINTS=98, OUT_DIM=256, PRETRAINED="", INIT_WEIGHTS=False, SAMPLE_NUM=7)


def package(name: str, folder: Path) -> types.ModuleType:
    """A package whose modules lie in ``folder``, without running what is in its __init__."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module
    return module


def slpt(checkout: Path) -> Iterator[Pair]:
    """Points of all stages and layers, with 6 and with 12 layers."""
    sys.path.insert(0, str(checkout))
    code = importlib.import_module("SLPT.SLPT")
    face = checkout / "Config" / "init_98.npz"
    for name, layers in (("slpt_hrnet18", 6), ("slpt_hrnet18_12l", 12)):
        config = Node(MODEL=hrnet_config((1, 1, 1)), TRANSFORMER=Node(NUM_DECODER=layers))
        theirs = code.Sparse_alignment_network(98, 256, True, True, False, 8, 1024, str(face), config)
        ours = create(name, num_landmarks=98)
        ours.mean_shape.copy_(torch.from_numpy(np.load(face)["init_face"] / 256))  # type: ignore[operator]
        yield name, theirs, lambda net, x: list(net(x)), ours, lambda net, x: list(net.intermediate(x).unbind(1))


def hrnet(checkout: Path) -> Iterator[Pair]:
    """Heatmaps."""
    package("lib", checkout / "lib")
    package("lib.models", checkout / "lib" / "models")
    code = importlib.import_module("lib.models.hrnet")
    theirs = code.HighResolutionNet(Node(MODEL=hrnet_config((1, 4, 3))))
    yield "hrnet18", theirs, lambda net, x: [net(x)], create("hrnet18", num_landmarks=98), lambda net, x: [net(x)]


def star(checkout: Path) -> Iterator[Pair]:
    """Heatmaps, edge and point maps of all stacks, of 29, 68 and 98 points."""
    for name in ("", ".dataset", ".backbone"):
        package(f"lib{name}", checkout.joinpath("lib", *name.split(".")[1:]))
    sys.modules["lib.dataset"].get_decoder = importlib.import_module("lib.dataset.decoder").get_decoder  # type: ignore[attr-defined]
    code = importlib.import_module("lib.backbone.stackedHGNetV1")
    for points in (29, 68, 98):
        ours = create("hourglass4", num_landmarks=points)
        edges = [(curve[0] == curve[-1], curve[:-1] if curve[0] == curve[-1] else curve) for curve in ours.config.edges]  # type: ignore[union-attr]
        config = Node(width=256, height=256, use_AAM=True)
        theirs = code.StackedHGNetV1(config, [points, len(edges), points], edges)

        def their_maps(net: nn.Module, x: torch.Tensor) -> Outputs:
            read, fused, _ = net(x)
            return [*fused, *(read[i] for i in range(len(read)) if i % 3)]  # without the points that are read

        def our_maps(net: Any, x: torch.Tensor) -> Outputs:
            stacks = net.intermediate(x)
            return [*(s.heatmaps for s in stacks), *(one for s in stacks for one in (s.edges, s.points))]

        yield f"hourglass4, {points} points", theirs, their_maps, ours, our_maps


def fan(checkout: Path) -> Iterator[Pair]:
    """Heatmaps of all stacks."""
    package("face_alignment", checkout / "face_alignment")
    package("face_alignment.models", checkout / "face_alignment" / "models")
    code = importlib.import_module("face_alignment.models.fan")
    for name, stacks in (("fan2", 2), ("fan4", 4)):
        ours = create(name)
        yield name, code.FAN(stacks), lambda net, x: list(net(x)), ours, lambda net, x: list(net.intermediate(x))


class Getter(nn.ModuleDict):
    """What RetinaFace's code takes of torchvision: the outputs of some children of a network, in order."""

    def __init__(self, network: nn.Module, wanted: dict[str, str]) -> None:
        names = [name for name, _ in network.named_children()]
        last = max(names.index(name) for name in wanted)
        super().__init__({name: network.get_submodule(name) for name in names[: last + 1]})
        self.wanted = wanted

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {}
        for name, child in self.items():
            x = child(x)
            if name in self.wanted:
                found[self.wanted[name]] = x
        return found


def retinaface(checkout: Path, source: str = "retinaface") -> Iterator[Pair]:
    """Boxes, class scores and points of all priors."""
    variants = {"mobilenet025": "cfg_mnet"}
    try:
        importlib.import_module("torchvision")
        if source == "retinaface":
            variants["resnet50"] = "cfg_re50"
    except ImportError:
        for name in ("models", "models.detection", "models.detection.backbone_utils", "models._utils"):
            package(f"torchvision.{name}", checkout)
        package("torchvision", checkout).models = sys.modules["torchvision.models"]  # type: ignore[attr-defined]
        models, detection = (sys.modules[f"torchvision.{name}"] for name in ("models", "models.detection"))
        models.detection, models._utils = detection, sys.modules["torchvision.models._utils"]  # type: ignore[attr-defined]
        models._utils.IntermediateLayerGetter = Getter
        detection.backbone_utils = sys.modules["torchvision.models.detection.backbone_utils"]  # type: ignore[attr-defined]
    package("models", checkout / "models")
    package("data", checkout / "data")
    configs = importlib.import_module("data.config")
    code = importlib.import_module("models.retinaface")
    for backbone, config in variants.items():
        theirs = code.RetinaFace({**getattr(configs, config), "pretrain": False}, phase="train")
        name = {"mobilenet025": "retinaface_mnet025", "resnet50": "retinaface_r50"}[backbone]
        ours = create(name, **official.get(source).overrides)
        yield name, theirs, lambda net, x: list(net(x)), ours, lambda net, x: list(net(x))


SOURCES: dict[str, Callable[[Path], Iterator[Pair]]] = {
    "slpt": slpt,
    "hrnet": hrnet,
    "star": star,
    "fan": fan,
    "retinaface": retinaface,
    "retinaface_1mb": lambda checkout: retinaface(checkout, "retinaface_1mb"),
}


def shake(network: nn.Module) -> None:
    """Random statistics for batch norm, which a new network has none of."""
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)


@torch.no_grad()
def compare(pair: Pair, source: str, weights: Path | None, x: torch.Tensor) -> dict[str, Any]:
    """Load the weights of one into the other, and return how far their outputs differ and reach."""
    name, theirs, their_outputs, ours, our_outputs = pair
    shake(theirs)
    if weights is not None:
        state = read_official(weights)
        for key in official.get(source).inside:
            state = state[key] if isinstance(state.get(key), dict) else state
        theirs.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    beside = {"mean_shape": ours.mean_shape.clone()} if source == "slpt" else {}  # type: ignore[operator]
    load(ours, theirs.state_dict(), source, beside)
    pairs = list(zip(their_outputs(theirs.eval(), x), our_outputs(ours.eval(), x), strict=True))
    return {
        "network": name,
        "outputs": len(pairs),
        "largest difference": max(float((a - b).abs().max()) for a, b in pairs),
        "largest output": max(float(a.abs().max()) for a, _ in pairs),
    }


def main(
    source: Annotated[str, typer.Argument(help="slpt, hrnet, star, fan, retinaface or retinaface_1mb")],
    checkout: Annotated[Path, typer.Argument(help="a folder with the public code, which is run")],
    weights: Annotated[
        Path | None, typer.Option(help="a released checkpoint of its first network, in the place of random weights")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="a picture, in the place of noise; for detectors")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="where the figures go, beside those there")
    ] = None,
) -> None:
    """Compare the networks of a public code with ours."""
    if source not in SOURCES:
        raise InputError(f"{source!r} is none of the codes {', '.join(SOURCES)}")
    if not checkout.is_dir():
        raise InputError(f"there is no folder {checkout}; it holds the public code of {source}")
    torch.manual_seed(0)
    x = torch.randn(2, 3, 256, 256)
    if picture is not None:
        pixels = read_image(picture).astype(np.float32) - (104, 117, 123)  # as RetinaFace's code has it
        x = torch.from_numpy(np.float32(pixels)).permute(2, 0, 1)[None]
    pairs = SOURCES[source](checkout.resolve())
    found = [compare(pair, source, weights, x) for pair in (pairs if weights is None else islice(pairs, 1))]
    for one in found:
        typer.echo(f"{one['network']}: {one['largest difference']:.2g} of at most {one['largest output']:.3g}")
    if out is not None:
        record = json.loads(out.read_text()) if out.is_file() else {}
        key = source if weights is None else f"{source}, {weights.name}"
        facts = {} if weights is None else {"sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
        shown = {"picture": picture.name} if picture is not None else {}
        record[key] = {**facts, **shown, "torch": torch.__version__, "networks": found}
        write_bytes(out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    typer.run(main)
