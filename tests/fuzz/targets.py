"""What is fuzzed: for each target how an input is made of a seed, and what is done with it.

An input is files, which the target finds in a folder of their own, and arguments. Refusing it by a typed error is
right, and so is taking it; anything else that is raised is a finding, and so is a file of the input that changed or one
that was left behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from facelm_sdk.errors import FacelmError

from . import mutate, seeds
from .mutate import damaged, damaged_json


class Finding(Exception):
    """What went wrong without an exception of its own."""


@dataclass(frozen=True)
class Input:
    """``replaced``: files that are no input, and may be written over."""

    files: dict[str, bytes] = field(default_factory=dict)
    arguments: tuple[Any, ...] = ()
    replaced: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Target:
    """``share``: its part of a long run's inputs, beside the others'. ``writes``: new files are part of its work.

    ``slow``: seconds after which an input is held to hang, far more than any takes on a busy machine.
    """

    name: str
    make: Callable[[random.Random], Input]
    run: Callable[..., None]
    share: float
    writes: bool = False
    slow: float = 60

    def input(self, seed: int) -> Input:
        """Return the input of a seed, always the same."""
        return self.make(random.Random(f"{self.name}:{seed}"))


TARGETS: dict[str, Target] = {}
Run = Callable[..., None]


def _target(make: Callable[[random.Random], Input], share: int, *, writes: bool = False) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        name = run.__name__.replace("_", "-")
        TARGETS[name] = Target(name, make, run, share, writes)
        return run

    return register


def refusals() -> tuple[type[Exception], ...]:
    """Return the errors that are documented."""
    return (FacelmError,)


# Pictures -------------------------------------------------------------------------------------------------------------


def _picture(width: int) -> Callable[[random.Random], Input]:
    def make(rng: random.Random) -> Input:
        files = seeds.pictures(width)
        name = rng.choice(sorted(files))
        if name.endswith(".png") and rng.random() < 0.5:
            return Input({name: mutate.damaged_png(rng, files[name])})
        words = (b"\xff\xd9", b"\xff\xd8", b"\xff\xda", b"\xff\x01", b"\xff\xc2", b"IEND", b"IDAT", b"Exif\0\0")
        return Input({name: damaged(rng, files[name], words, [files[other] for other in sorted(files)])})

    return make


@_target(_picture(40), 100)
def read_image(folder: Path) -> None:
    from facelm_sdk import read_image
    from facelm_sdk.images.picture import Picture

    (path,) = folder.iterdir()
    image = read_image(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise Finding(f"a picture of {image.dtype} {image.shape}")
    picture = Picture(path)
    if not np.array_equal(picture.view().image, image) or (picture.height, picture.width) != image.shape[:2]:
        raise Finding("Picture and read_image differ")


@cache
def _aligner() -> Any:
    from facelm_sdk import Aligner

    return Aligner(threads=1)


@_target(_picture(160), 4)
def align_picture(folder: Path) -> None:
    from facelm_sdk import read_image

    (path,) = folder.iterdir()
    aligner = _aligner()
    try:
        image = read_image(path)
    except FacelmError:
        try:
            aligner(path)
        except FacelmError:
            raise
        raise Finding("Aligner takes what read_image refuses") from None
    for one in aligner(path):
        if not np.isfinite(one.landmarks).all():
            raise Finding("landmarks that are not finite")
    del image


# Models ---------------------------------------------------------------------------------------------------------------


def _onnx(rng: random.Random) -> Input:
    models = seeds.onnx_models()
    return Input({"model.onnx": mutate.damaged_onnx(rng, models[rng.choice(sorted(models))])})


def _run_session(session: Any) -> None:
    """Run it once on what its contract promises to take."""
    for count in (2, 0):
        feeds = {}
        for name, tensor in session.spec.tensors.inputs.items():
            sides = [size if isinstance(size, int) else 48 for size in tensor.shape]
            if session.spec.task == "landmarks":
                sides[0] = count
                if math.prod(sides) > 1 << 26:
                    return
            feeds[name] = np.full(sides, 7, np.uint8)
        session.run(feeds)


@_target(_onnx, 20)
def onnx_session(folder: Path) -> None:
    from facelm_sdk.runtimes.base import RuntimeOptions
    from facelm_sdk.runtimes.onnxruntime import OrtSession

    _run_session(OrtSession(folder / "model.onnx", RuntimeOptions(threads=1)))


@_target(_onnx, 10)
def onnx_inspect(folder: Path) -> None:
    _inspect(folder / "model.onnx")


def _inspect(path: Path) -> None:
    from facelm_sdk.cli.inspect import rows
    from facelm_sdk.inspect import inspect_model

    facts = inspect_model(path)
    json.dumps(facts, ensure_ascii=False).encode()
    "".join(text for one in (facts, *facts.get("models", ())) for row in rows(one) for text in row).encode()


def _contract(rng: random.Random) -> Input:
    contracts = seeds.contracts()
    return Input(arguments=(damaged_json(rng, contracts[rng.choice(sorted(contracts))]).decode("utf-8", "replace"),))


@_target(_contract, 60)
def contract(folder: Path, text: str) -> None:
    from facelm_sdk.contract import ModelSpec

    spec = ModelSpec.from_json(text)
    if ModelSpec.from_json(spec.to_json()).to_json() != spec.to_json():
        raise Finding("a contract that is another after writing and reading")
    _ = spec.tensors


def _openvino(rng: random.Random) -> Input:
    models = seeds.openvino_models()
    xml, weights = models[rng.choice(sorted(models))]
    kind = rng.random()
    if kind < 0.15:
        weights = damaged(rng, weights)
    elif kind < 0.5:
        contract = json.loads(json.dumps(seeds.contracts()[rng.choice(sorted(seeds.contracts()))]))
        from xml.sax.saxutils import quoteattr

        start, end = xml.index(b"<facelm value=") + 14, xml.index(b"/>", xml.index(b"<facelm value="))
        text = damaged_json(rng, contract).decode("utf-8", "replace")
        xml = xml[:start] + quoteattr(text).encode("utf-8", "replace") + xml[end:]
    else:
        words = (
            b"<layer",
            b"</net>",
            b'id="0"',
            b'type="Add"',
            b'"-1"',
            b"<dim>9</dim>",
            b"&#0;",
            b"\xff",
            b"f16",
            b"i64",
        )
        xml = damaged(rng, xml, words)
    return Input({"model.xml": xml, "model.bin": weights})


@_target(_openvino, 2)
def openvino_session(folder: Path) -> None:
    from facelm_sdk.runtimes.base import RuntimeOptions
    from facelm_sdk.runtimes.openvino import OpenVinoSession

    _run_session(OpenVinoSession(folder / "model.xml", RuntimeOptions(threads=1)))


@_target(_openvino, 10)
def openvino_inspect(folder: Path) -> None:
    _inspect(folder / "model.xml")


def _engine(rng: random.Random) -> Input:
    card = {"flavour": "tensorrt", "version": "11.0", "gpu": "NVIDIA L4", "spec": seeds.contracts()["points"]}
    return Input({"model.engine": b"opaque", "model.engine.json": damaged_json(rng, card)})


@_target(_engine, 10)
def engine_inspect(folder: Path) -> None:
    _inspect(folder / "model.engine")


def _card(rng: random.Random) -> Input:
    from facelm_sdk.contract import ModelSpec
    from facelm_sdk.runtimes.tensorrt.sidecar import EngineCard

    spec = ModelSpec.from_json(json.dumps(seeds.contracts()["points"]))
    card = EngineCard(
        flavour="tensorrt_rtx",
        version="1.7",
        gpu=None,
        compute_capabilities=("8.9", "12.0+"),
        batch=None,
        profiles=((1, 8, 64),),
        engine_sha256="0" * 64,
        source_sha256="0" * 64,
        rebuild=None,
        spec=spec,
    )
    return Input({"model.engine.json": damaged_json(rng, json.loads(card.to_json()))})


@_target(_card, 10)
def engine_card(folder: Path) -> None:
    from facelm_sdk.runtimes.tensorrt.sidecar import EngineCard

    card = EngineCard.read(folder / "model.engine")
    _ = card.max_batch, card.runs_on("8.9")
    if EngineCard.from_json(card.to_json()) != card:
        raise Finding("a card that is another after writing and reading")


def _triton(rng: random.Random) -> Input:
    config = b'name: "tiny"\nbackend: "onnxruntime"\nmax_batch_size: 16\n'
    files = {"tiny/config.pbtxt": config, "tiny/1/model.onnx": seeds.onnx_models()["points"], "tiny/2/labels.txt": b"x"}
    name = rng.choice(sorted(files))
    files[name] = damaged(rng, files[name], (b"backend:", b"\xff", b'"', b"\n"))
    if rng.random() < 0.3:
        files[
            f"tiny/{rng.choice(('²', '00000000000', '9' * 200, '-1', '3'))}/model.{rng.choice(('onnx', 'xml', 'plan'))}"
        ] = b"x"
    return Input(files)


@_target(_triton, 8)
def triton_inspect(folder: Path) -> None:
    _inspect(folder)


def _checkpoint(rng: random.Random) -> Input:
    files = seeds.checkpoints()
    name = rng.choice(sorted(files))
    words = (
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"cposix\nsystem\n",
        b"cbuiltins\nlist\n",
        b"R",
        b"b",
        b"Q",
        b"0",
        b"]",
        b"}",
    )

    def damage(rng: random.Random, data: bytes) -> bytes:
        return damaged(rng, data, words)

    if name == "legacy.pth":
        return Input({name: damage(rng, files[name])})
    return Input({name: mutate.damaged_zip(rng, files[name], damage)})


@_target(_checkpoint, 30)
def checkpoint(folder: Path) -> None:
    from facelm_models.weights import read_official

    (path,) = folder.iterdir()
    read_official(path)


def _weights(rng: random.Random) -> Input:
    files = seeds.weights()
    return Input({"net.safetensors": mutate.damaged_safetensors(rng, files[rng.choice(sorted(files))])})


@_target(_weights, 6)
def safetensors_restore(folder: Path) -> None:
    from facelm_models import restore

    restore(folder / "net.safetensors")


@_target(_weights, 15)
def safetensors_inspect(folder: Path) -> None:
    _inspect(folder / "net.safetensors")


def _manifest(rng: random.Random) -> Input:
    from facelm_sdk import zoo

    model = seeds.onnx_models()["points"]
    digest = hashlib.sha256(model).hexdigest()
    entry = {"name": zoo.LANDMARKS, "file": "points.onnx", "sha256": digest, "task": "landmarks", "precision": "fp32"}
    return Input({"manifest.json": damaged_json(rng, {"models": [entry]}), "points.onnx": model})


@_target(_manifest, 10)
def manifest(folder: Path) -> None:
    from facelm_sdk import zoo

    with mock.patch.object(zoo, "WEIGHTS", folder):
        zoo.list_models()
        zoo.resolve(zoo.LANDMARKS)


# Data sets and recipes ------------------------------------------------------------------------------------------------


def _dataset(name: str) -> Callable[[random.Random], Input]:
    def make(rng: random.Random) -> Input:
        files = dict(seeds.datasets()[name])
        chosen = rng.choice([file for file in sorted(files) if not file.endswith(".jpg")])
        words = (b"nan", b"inf", b"1e999", b"-", b" ", b"\n", b"{", b"}", b"\xff", b"../x.jpg", b"\0", b"68", b"1e38")
        if chosen.endswith((".npz", ".zip")):
            files[chosen] = mutate.damaged_zip(rng, files[chosen])
        else:
            files[chosen] = damaged(rng, files[chosen], words)
        usual = "challenging" if name == "300w" else "full"  # the folders there are
        return Input(files, (name, rng.choice((usual, usual, usual, "full", "pose", "x"))))

    return make


def _read_dataset(folder: Path, name: str, subset: str) -> None:
    from facelm_training import datasets
    from facelm_training.data import faces_of

    split = {"turned68": "train", "landmarks68": "val"}.get(name, "test")
    found = datasets.open(f"{name}/{split}/{subset}:{folder}")
    for sample in found:
        sample.image()
    if name != "cofw":
        faces_of(found)


@_target(_dataset("300w"), 12)
def dataset_300w(folder: Path, name: str, subset: str) -> None:
    from facelm_sdk.errors import InputError
    from facelm_training.datasets.w300 import read_pts

    with contextlib.suppress(InputError):
        read_pts(folder / "ibug" / "a.pts")
    _read_dataset(folder, name, subset)


def _plain_dataset(name: str, share: int) -> None:
    def run(folder: Path, name: str, subset: str) -> None:
        _read_dataset(folder, name, subset)

    run.__name__ = f"dataset_{name}"
    _target(_dataset(name), share)(run)


for _name, _share in {"wflw": 12, "jd106": 12, "turned68": 12, "landmarks68": 12, "cofw": 8}.items():
    _plain_dataset(_name, _share)


def _frames(rng: random.Random) -> Input:
    def damage(rng: random.Random, data: bytes) -> bytes:
        if not data.startswith(b"{"):
            return damaged(rng, data)
        lines = data.splitlines()
        index = rng.randrange(len(lines))
        lines[index] = damaged_json(rng, json.loads(lines[index])).replace(b"\n", b" ")
        return b"\n".join(lines)

    return Input({"frames.zip": mutate.damaged_zip(rng, seeds.frames_zip(), damage)})


@_target(_frames, 12)
def detection_frames(folder: Path) -> None:
    from facelm_training.data import detection_frames

    for frame in detection_frames(folder, "train"):
        frame.image()


def _mat(rng: random.Random) -> Input:
    files = seeds.mat5()
    name = rng.choice(sorted(files))
    return Input({name.partition("/")[2]: damaged(rng, files[name])})


@_target(_mat, 15)
def mat5(folder: Path) -> None:
    from facelm_training.datasets.cofw import read_mat

    (path,) = folder.iterdir()
    read_mat(path, *(("bboxes",) if "bboxes" in path.name else ("Points", "Occ")))


def _recipe(rng: random.Random) -> Input:
    recipes = seeds.recipes()
    return Input({"mine.toml": mutate.damaged_toml(rng, recipes[rng.choice(sorted(recipes))])})


@_target(_recipe, 2)
def recipe(folder: Path) -> None:
    from facelm_training.recipe import LandmarkRecipe, crop_recipe, read

    found = read(folder / "mine.toml")
    if isinstance(found, LandmarkRecipe):
        for stage in found.stages:
            found.weights_of(stage)
            crop_recipe(found, stage.size)


# Arrays and arguments -------------------------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        1,
        -1,
        1.5,
        "x",
        "",
        "auto",
        "cpu",
        b"x",
        2**31,
        2**63,
        10**400,
        1e308,
        100_000,
        math.nan,
        math.inf,
    ),
    *([], (), {}, [1, 2, 3, 4], [[1, 2, 3, 4]], (64, 64), (64, None), [10**400] * 4, [[1e30, -1e30, 1e30, 1e30]]),
    *([[0, 0, 0, 0]], [[30, 30, 10, 10]], [["a"] * 4], [[math.nan] * 4], object(), set(), np.array(5), np.float64(0.5)),
    *(
        np.zeros((0, 4)),
        np.zeros((2, 4), complex),
        np.zeros((1, 5, 2)),
        np.full((1, 5, 2), 1e38),
        np.zeros((3, 4), "U1"),
    ),
    *(np.random.default_rng(0).uniform(0, 60, (1, 5, 2)), np.array([[5, 5, 40, 40]], np.uint8), np.int64(3), "kps5"),
)
DTYPES = (
    "uint8",
    "uint16",
    "float32",
    "float64",
    "int8",
    "int64",
    "bool",
    "complex64",
    "U2",
    "O",
    "float16",
    ">f4",
    "M8[s]",
)


def _array(rng: random.Random) -> np.ndarray:
    shape = rng.choice(
        ((), (0,), (5,), (4, 6), (4, 6, 1), (4, 6, 3), (4, 6, 4), (4, 6, 2), (0, 6, 3), (1, 1, 3), (2, 4, 6, 3))
    )
    dtype = np.dtype(rng.choice(DTYPES))
    count = math.prod(shape)
    if dtype.kind in "UOM":
        return np.zeros(shape, dtype)
    if dtype.kind in "fc":
        values = [rng.choice((0, 0.5, 1, 1, 0.25, math.nan if rng.random() < 0.05 else 1)) for _ in range(count)]
    else:
        values = [rng.randrange(2 if dtype.kind == "b" else 128) for _ in range(count)]
    array = np.array(values, dtype).reshape(shape)
    return array[::-1] if array.ndim and rng.random() < 0.3 else array


def _arrays(rng: random.Random) -> Input:
    odd = [rng.choice(ODD) for _ in range(4)]
    return Input(arguments=(_array(rng), rng.choice(("bgr", "rgb", "bgr", odd[0])), *odd))


@_target(_arrays, 40)
def arrays(folder: Path, image: np.ndarray, color: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    from facelm_sdk import read_image
    from facelm_sdk.transform import CropTransform

    calls = (
        lambda: read_image(image, color),
        lambda: read_image(a),
        lambda: CropTransform.from_kps5(a, b, 32),
        lambda: CropTransform.from_box(c, 32),
    )
    _each(calls)


def _each(calls: Any) -> None:
    """Make every call; the refusal of the first is told when all are made."""
    refused: Exception | None = None
    for call in calls:
        try:
            call()
        except refusals() as error:
            refused = refused or error
    if refused is not None:
        raise refused


OPTIONS = (
    "flip",
    "variant",
    "device",
    "providers",
    "strict",
    "det_size",
    "det_thresh",
    "threads",
    "max_faces",
    "profile",
)


def _arguments(rng: random.Random) -> Input:
    options = {name: rng.choice(ODD) for name in rng.sample(OPTIONS, rng.choice((1, 1, 2)))}
    return Input({"finds.onnx": seeds.onnx_models()["finds"], "points.onnx": seeds.onnx_models()["points"]}, (options,))


@_target(_arguments, 12)
def aligner_arguments(folder: Path, options: dict[str, Any]) -> None:
    from facelm_sdk import Aligner

    with _without_logs():
        aligner = Aligner(folder / "points.onnx", folder / "finds.onnx", **options)
        aligner(seeds.face(64))


@cache
def _quick_aligner() -> Any:
    from facelm_sdk import Aligner
    from facelm_sdk.runtimes.onnxruntime import OrtSession

    models = seeds.onnx_models()
    return Aligner(OrtSession(models["points"]), OrtSession(models["finds"]))


def _calls(rng: random.Random) -> Input:
    options = {name: rng.choice(ODD) for name in rng.sample(("boxes", "kps", "color"), rng.choice((1, 1, 2)))}
    return Input(arguments=(rng.choice((None, None, _array(rng))), options, rng.choice(ODD), rng.choice(ODD)))


@_target(_calls, 30)
def aligner_calls(folder: Path, image: Any, options: dict[str, Any], size: Any, markup: Any) -> None:
    image = seeds.face(64) if image is None else image
    for one in _quick_aligner()(image, **options):
        json.dumps(one.to_dict())
        _each((lambda one=one: one.crop(image, size), lambda one=one: one.to(markup)))


def _annotation(rng: random.Random) -> Input:
    texts = seeds.annotations()
    kind = rng.choice(sorted(texts))
    if isinstance(texts[kind], str):
        return Input(arguments=(kind, damaged(rng, texts[kind].encode()).decode("utf-8", "replace")))
    return Input(arguments=(kind, damaged_json(rng, texts[kind]).decode("utf-8", "replace")))


@_target(_annotation, 40)
def annotations(folder: Path, kind: str, text: str) -> None:
    """Faces of other people's files."""
    from facelm_sdk import Face
    from facelm_sdk.interop import coco, dlib, insightface, pts, table

    value: Any = text
    if kind not in ("pts", "dlib"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return
    read: dict[str, Callable[[Any], Any]] = {
        "pts": pts.from_pts,
        "dlib": dlib.from_dlib_xml,
        "coco": coco.from_coco,
        "face": Face.from_dict,
        "row": table.from_row,
        "insightface": insightface.from_insightface,
    }
    found = read[kind](value)
    faces = [one for group in found.values() for one in group] if isinstance(found, dict) else [found]
    for face in faces:
        Face.from_dict(json.loads(json.dumps(face.to_dict())))
        pts.from_pts(pts.to_pts(face))
        table.from_row(table.to_row(face))


# Video and command lines ----------------------------------------------------------------------------------------------


def _video(rng: random.Random) -> Input:
    files = seeds.videos()
    name = rng.choice(sorted(files))
    words = (b"00dc", b"idx1", b"LIST", b"moov", b"mdat", b"stsz", b"\x1a\x45\xdf\xa3")
    return Input({name: damaged(rng, files[name], words)})


@_target(_video, 6)
def video(folder: Path) -> None:
    from facelm_sdk.video.reader import VideoReader

    (path,) = folder.iterdir()
    for index, frame in enumerate(VideoReader(str(path))):
        if frame.dtype != np.uint8 or frame.ndim != 3:
            raise Finding(f"a frame of {frame.dtype} {frame.shape}")
        if index > 200:
            break


NAMES = (
    "a.jpg",
    "b.png",
    "bad.jpg",
    "v.avi",
    "t",
    "t/c.jpg",
    "t/*",
    "none",
    "",
    "out",
    "out/x.json",
    "out.mp4",
    "-",
    "m.onnx",
    "é",
)
VALUES = (
    *NAMES,
    "0",
    "-1",
    "1",
    "64",
    "1e9",
    "99999999999",
    "nan",
    "auto",
    "64x64",
    "fp32",
    "int8",
    "cuda",
    "cpu",
    *("jsonl", "csv", "parquet", "pts", "coco"),
    "x",
    "\udcff",
)
COMMANDS = {
    "align": (
        *(
            "-o",
            "--json-lines",
            "--format",
            "--draw",
            "--crops",
            "--det-size",
            "--det-thresh",
            "--workers",
            "--threads",
            "-q",
        ),
        *("--max-faces", "--variant", "--device", "--model", "--detector", "--profile", "--flip", "--strict"),
    ),
    "track": ("-o", "--json-lines", "--max-faces", "--redetect-every", "--det-size", "--threads", "--model", "-q"),
    "inspect": ("--json", "-x"),
    "models": ("--json", "x"),
    "doctor": ("--json", "x"),
    "eval": ("--model", "--out"),
    "train": ("--data", "--out", "--threads", "--device", "--limit"),
}
FLAGS = ("--draw", "-q", "--profile", "--flip", "--strict", "--json", "-x", "x")


def _command_line(rng: random.Random) -> Input:
    pictures = seeds.pictures(160)
    files = {
        "a.jpg": pictures["plain.jpg"],
        "b.png": pictures["colour.png"],
        "t/c.jpg": pictures["turned.jpg"],
        "bad.jpg": damaged(rng, pictures["plain.jpg"]),
        "v.avi": seeds.videos()["a.avi"],
        "m.onnx": seeds.onnx_models()["points"],
    }
    command = rng.choice(("align", "align", "align", "track", "track", *COMMANDS))
    line = [command, *rng.choices(NAMES, k=rng.choice((0, 1, 1, 1, 2)))]
    for option in rng.sample(COMMANDS[command], rng.choice((0, 1, 1, 2, 3)) % (len(COMMANDS[command]) + 1)):
        line += [option] if option in FLAGS else [option, rng.choice(VALUES)]
    # A video or a model that is named as an output alone, which no command takes for pictures.
    written = {value for option, value in pairwise(line) if option in ("-o", "--json-lines") and line.count(value) == 1}
    return Input(files, (line,), frozenset(written & {"v.avi", "m.onnx"}))


@_target(_command_line, 1, writes=True)
def command_line(folder: Path, line: list[str]) -> None:
    from facelm_sdk import cli

    with _inside(folder), mock.patch.object(sys, "argv", ["facelm", *line]), _without_logs():
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
            cli.main()


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    import logging

    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
