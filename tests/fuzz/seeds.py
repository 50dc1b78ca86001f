"""Small sound files of every kind the package reads, made here: what the mutators start from."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from facelm_sdk import markup as markups
from facelm_sdk.contract import DetectorSpec, LandmarkSpec, PipelineSpec
from facelm_sdk.transform import CropRecipe, kps5_recipe

from .mutate import zipped

PORTRAIT = Path(__file__).parents[2] / "facelm_sdk" / "assets" / "portrait.jpg"
SIDE = 8
"""Pixels of a crop."""


def face(width: int) -> np.ndarray:
    """The package's portrait (H, W, 3) uint8 BGR at another width."""
    import cv2

    image = cv2.imread(str(PORTRAIT))
    height = round(image.shape[0] * width / image.shape[1])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _exif(orientation: int) -> bytes:
    """An APP1 segment that says how a JPEG is turned."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0MM\0*" + struct.pack(">I", 8) + struct.pack(">H", 1) + entry + struct.pack(">I", 0)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


@cache
def pictures(width: int = 40) -> dict[str, bytes]:
    """Pictures by the names of their files."""
    import cv2

    image = face(width)
    deep = image.astype(np.uint16) * 257
    options = {
        "plain.jpg": (image, []),
        "progressive.jpg": (image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
        "grey.jpg": (image[..., 0], []),
        "colour.png": (image, []),
        "alpha.png": (np.dstack([image, image[..., :1]]), []),
        "deep.png": (deep, []),
        "plain.bmp": (image, []),
        "plain.webp": (image, []),
        "deep.tiff": (deep, []),
        "plain.tiff": (image, []),
        "plain.ppm": (image, []),
    }
    files = {name: cv2.imencode(Path(name).suffix, *arguments)[1].tobytes() for name, arguments in options.items()}
    files["turned.jpg"] = files["plain.jpg"][:2] + _exif(6) + files["plain.jpg"][2:]
    return files


@cache
def contracts() -> dict[str, Any]:
    """Contracts as JSON values."""
    common: dict[str, Any] = {"markup": "kps5", "num_landmarks": 5}
    box = CropRecipe(size=SIDE, kind="box", scale=1.2, shift=(0.0, -0.12))
    specs = (
        LandmarkSpec(name="points", crop=kps5_recipe(SIDE), parity={"max_px": 0.1}, multiply_adds=0.01, **common),
        LandmarkSpec(name="boxed", crop=box, has_scores=True, licence="CC0", **common),
        DetectorSpec(name="finds", det_thresh=0.5),
        PipelineSpec(name="all", crop=box, det_thresh=0.5, det_size=64, **common),
    )
    return {spec.name: spec.to_dict() for spec in specs}


@cache
def onnx_models() -> dict[str, bytes]:
    """A model for each of :func:`contracts`, by its name."""
    from onnx import helper, numpy_helper, parser

    def model(name: str, signature: str, nodes: str, **tensors: Any) -> bytes:
        found = parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {name} {signature} {{ {nodes} }}')
        found.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items())
        helper.set_model_props(found, {"facelm": json.dumps(contracts()[name])})
        return found.SerializeToString()

    template = np.linspace(1, SIDE - 2, 10, dtype=np.float32).reshape(1, 5, 2)
    mean = {"axes": np.array([1, 2, 3]), "column": np.array([-1, 1, 1])}
    crops = f"(uint8[n, {SIDE}, {SIDE}, 3] crops)"
    nodes = """level = Cast<to=1>(crops) left = ReduceMean<keepdims=0>(level, axes) moved = Reshape(left, column)
        landmarks = Add(template, moved)"""
    scores = "flat = Reshape(left, row) scores = Add(zeros, flat)"
    faces = "float[k, 4] boxes, float[k] scores, float[k, 5, 2] kps"
    found = {
        "boxes0": np.array([[4, 4, 30, 40], [20, 8, 50, 40]], np.float32),
        "scores0": np.array([0.9, 0.6], np.float32),
        "kps0": np.linspace(5, 40, 20, dtype=np.float32).reshape(2, 5, 2),
        "nothing": np.float32(0),
    }
    search = """level = Cast<to=1>(image) mean = ReduceMean<keepdims=0>(level) none = Mul(mean, nothing)
        boxes = Add(boxes0, none) scores = Add(scores0, none) kps = Add(kps0, none)"""
    return {
        "points": model("points", f"{crops} => (float[n, 5, 2] landmarks)", nodes, template=template, **mean),
        "boxed": model(
            "boxed",
            f"{crops} => (float[n, 5, 2] landmarks, float[n, 5] scores)",
            f"{nodes} {scores}",
            template=template,
            row=np.array([-1, 1]),
            zeros=np.zeros((1, 5), np.float32),
            **mean,
        ),
        "finds": model("finds", f"(uint8[1, H, W, 3] image) => ({faces})", search, **found),
        "all": model(
            "all",
            f"(uint8[H, W, 3] image) => ({faces}, float[k, 5, 2] landmarks)",
            f"{search} landmarks = Add(kps0, none)",
            **found,
        ),
    }


@cache
def openvino_models() -> dict[str, tuple[bytes, bytes]]:
    """(.xml, .bin) of the same."""
    import openvino

    core, found = openvino.Core(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, data in onnx_models().items():
            path = Path(folder, f"{name}.xml")
            network = core.read_model(io.BytesIO(data))
            network.set_rt_info(json.dumps(contracts()[name]), ["facelm"])
            openvino.save_model(network, path, compress_to_fp16=False)
            found[name] = (path.read_bytes(), path.with_suffix(".bin").read_bytes())
    return found


@cache
def checkpoints() -> dict[str, bytes]:
    """PyTorch's files: zips, the format before them, and a TorchScript archive."""
    import torch
    from torch import nn

    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    state = network.state_dict()
    found = {}
    for name, content, new in (
        ("state.pth", state, True),
        ("nested.pth", {"net": state, "epoch": 3, "best": [0.5, "x"]}, True),
        ("legacy.pth", {"state_dict": state}, False),
    ):
        target = io.BytesIO()
        torch.save(content, target, _use_new_zipfile_serialization=new)
        found[name] = target.getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = io.BytesIO()
        torch.jit.save(torch.jit.trace(network.eval(), torch.zeros(1, 1, 4, 4)), target)
    found["script.pt"] = target.getvalue()
    return found


@cache
def weights() -> dict[str, bytes]:
    """Safetensors files of this project's training."""
    from facelm_models import create
    from facelm_models.weights import to_bytes

    small = {
        "fan2": {"stacks": 1, "dim": 16, "depth": 1, "size": 16, "num_landmarks": 5},
        "hourglass4": {"stacks": 1, "dim": 8, "depth": 1, "size": 16, "num_landmarks": 68},
    }
    return {
        f"{name}.safetensors": to_bytes(
            create(name, **options), {"model": name, "markup": "ibug68", "accuracy": {"a": 1}}
        )
        for name, options in small.items()
    }


def _points(markup: str, count: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(5, 35, (count, markups.get(markup).num_points, 2)).round(2)


def _npz(**arrays: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.savez(target, **arrays)  # type: ignore[arg-type]
    return target.getvalue()


@cache
def datasets() -> dict[str, dict[str, bytes]]:
    """Folders of data sets: the files by their paths."""
    import h5py

    picture = pictures()["plain.jpg"]
    pts = "\n".join(f"{x:.2f} {y:.2f}" for x, y in _points("ibug68", 1)[0])
    flags = ("1 0 0 0 0 0", "0 0 0 1 0 1")
    lines = [
        " ".join([*(f"{v:.2f}" for v in points.ravel()), "5 5 30 30", flag, "a/b.jpg"])
        for points, flag in zip(_points("wflw98", 2), flags, strict=True)
    ]
    jd106 = "106\n" + "\n".join(f"{x:.2f} {y:.2f}" for x, y in _points("jd106", 1)[0])
    numbers = _npz(name=np.array(["a.jpg", "b.jpg"]), points=_points("ibug68", 2), known=np.ones((2, 68), bool))
    points, five = np.float32(_points("ibug68", 2)), np.float32(_points("kps5", 2))
    names, splits, near = np.array(["a.jpg", "b.jpg"]), np.array(["val", "val"]), np.zeros(2, np.float32)
    labels = _npz(crop_points=points, crop_disagreement=near)
    found = {
        "landmarks68": {
            "landmarks68.npz": _npz(name=names, points=points, kps5=five, split=splits),
            "landmarks68_clean.npz": labels,
            "landmarks68_300w.npz": labels,
            "landmarks68.zip": zipped([("a.jpg", picture), ("b.jpg", picture)]),
        },
        "300w": {"ibug/a.jpg": picture, "ibug/a.pts": f"version: 1\nn_points: 68\n{{\n{pts}\n}}\n".encode()},
        "wflw": {"list_98pt_rect_attr_test.txt": "\n".join(lines).encode(), "WFLW_images/a/b.jpg": picture},
        "jd106": {
            "Test/picture/a.jpg": picture,
            "Test/landmark/a.jpg.txt": jd106.encode(),
            "Test/rect/a.jpg.rect": b"5 5 30 30",
        },
        "turned68": {"turned68.npz": numbers, "a.jpg": picture, "b.jpg": picture},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cofw.mat")
        with h5py.File(path, "w") as file:
            values = np.random.default_rng(6).uniform(3, 30, (87, 2))
            file["phisT"], file["bboxesT"] = values, values[:4]
            images = file.create_dataset("IsT", (1, 2), h5py.ref_dtype)
            for index in range(2):
                file[f"picture{index}"] = np.zeros((3, 12, 10), np.uint8)
                images[0, index] = file[f"picture{index}"].ref
        found["cofw"] = {"COFW_test_color.mat": path.read_bytes()}
    return found


@cache
def frames_zip() -> bytes:
    """The detector's training data: pictures and labels.jsonl."""
    entries = [
        {
            "image": f"{i}.jpg",
            "split": "train",
            "boxes": [[1, 2, 30, 31]] * i,
            "scores": [0.9] * i,
            "kps5": [[[1, 2]] * 5] * i,
        }
        for i in range(3)
    ]
    labels = "\n".join(json.dumps(entry) for entry in entries).encode()
    return zipped([("labels.jsonl", labels), *((f"{i}.jpg", pictures()["plain.jpg"]) for i in range(3))])


@cache
def mat5() -> dict[str, bytes]:
    """COFW-68's MATLAB 5 files."""
    import scipy.io

    found = {}
    for name, content in {
        "1_points.mat": {"Points": _points("ibug68", 1)[0], "Occ": np.zeros((1, 68), np.uint8)},
        "cofw68_test_bboxes.mat": {"bboxes": np.array([[1.0, 2, 30, 31]])},
    }.items():
        for compress in (False, True):
            target = io.BytesIO()
            scipy.io.savemat(target, content, do_compression=compress)
            found[f"{int(compress)}/{name}"] = b"MATLAB 5.0 MAT-file".ljust(116) + target.getvalue()[116:]
    return found


@cache
def recipes() -> dict[str, str]:
    """Training recipes: the packaged ones, and a small one with every table."""
    from facelm_training.recipe import CONFIGS, names

    small = """model = "lotr_m"
objective = "coordinates"
markup = "wflw98"
seed = 3
held_out_part = 0.1
start = ""
crop = { kind = "box", side = "max", scale = 1.4, shift = [0.0, 0.1] }
evaluate_every = 2
options = { dim = 16, heads = 2 }
[augmentation]
degrees = 10
flip = 0.5
[weights]
loss = "l1"
[[stages]]
name = "pooled"
network = "pooled"
size = 32
schedule = { steps = 2, batch = 2, warmup = 1 }
[[stages]]
name = "full"
size = 64
[stages.schedule]
epochs = 1
batch = 2
rate = 1e-3
drops = [0.5, 0.8]
optimiser = "lamb"
"""
    packaged = {name: (CONFIGS / f"{name}.toml").read_text("utf-8") for name in names()}
    return {"small": small, "small2": small, **packaged}


@cache
def videos() -> dict[str, bytes]:
    """Twelve frames each."""
    import cv2

    found, image = {}, face(64)
    with tempfile.TemporaryDirectory() as folder:
        for name, codec in (("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mkv", "mp4v")):
            path = Path(folder, name)
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, image.shape[1::-1])
            for index in range(12):
                writer.write(np.roll(image, index, 1))
            writer.release()
            found[name] = path.read_bytes()
    return found


def annotations() -> dict[str, Any]:
    """Faces as text (.pts, dlib) and as JSON values, by the name of what reads them."""
    from facelm_sdk import Face
    from facelm_sdk.interop import coco, dlib, pts, table

    points = np.random.default_rng(0).uniform(0, 100, (5, 2)).round(2)
    face = Face.of_landmarks(points, "kps5", score=0.5, scores=np.full(5, 0.5), track_id=1, presence=1.0)
    return {
        "pts": pts.to_pts(face),
        "dlib": dlib.to_dlib_xml([("a.jpg", [face])]),
        "coco": coco.to_coco([coco.CocoImage("a.jpg", 100, 100, [face])]),
        "face": face.to_dict(),
        "row": table.to_row(face),
        "insightface": {"bbox": face.bbox.tolist(), "kps": points.tolist(), "det_score": 0.5},
    }
