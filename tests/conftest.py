"""Shared fixtures: the training data's folder, and tiny models that follow the contract."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch: workers side by side have the cores already
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelm_sdk import markup as markups
from facelm_sdk import zoo
from facelm_sdk.contract import DetectorSpec, LandmarkSpec
from facelm_sdk.transform import CropRecipe, kps5_recipe

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The training data's folder: FACELM_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("FACELM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no training data in {folder}; set FACELM_DATA")
    return folder


ModelFactory = Callable[..., Path]


@pytest.fixture(scope="session")
def landmark_spec() -> Callable[..., LandmarkSpec]:
    def build(size: int = 32, markup: str = "ibug68", crop: CropRecipe | None = None, **values: Any) -> LandmarkSpec:
        points = markups.get(markup).num_points
        crop = crop or kps5_recipe(size, zoom=0.8)
        return LandmarkSpec(name="tiny", markup=markup, num_landmarks=points, crop=crop, **values)

    return build


@pytest.fixture(scope="session")
def template() -> Callable[..., np.ndarray]:
    """The points (L, 2) a tiny landmark model gives for a black crop of that size."""

    def build(points: int, size: int) -> np.ndarray:
        return np.random.default_rng(points).uniform(0.2 * size, 0.8 * size, (points, 2)).astype(np.float32)

    return build


@pytest.fixture(scope="session")
def landmark_model(
    tmp_path_factory: pytest.TempPathFactory,
    landmark_spec: Callable[..., LandmarkSpec],
    template: Callable[..., np.ndarray],
) -> ModelFactory:
    """Writes a model: the template moved by (1, 0.5) pixels a 32 levels of its crop's left half.

    Scores and presence, where the contract has them, are that level, from 0 to 1.

    ``metadata`` replaces the contract; the other arguments are those of ``landmark_spec``.
    """

    def build(metadata: str | None = None, batch: str | int = "n", **values: Any) -> Path:
        from onnx import numpy_helper, parser

        spec = landmark_spec(**values)
        size, points = spec.crop.size, spec.num_landmarks
        scores = f", float[{batch}, {points}] scores" if spec.has_scores else ""
        scoring = "level = Reshape(left, column) scores = Add(zeros, level)" if spec.has_scores else ""
        presence = f", float[{batch}] presence" if spec.has_presence else ""
        sensing = "presence = Identity(left)" if spec.has_presence else ""
        model = parser.parse_model(
            f"""<ir_version: 8, opset_import: ["": 18]>
            tiny (uint8[{batch}, {size}, {size}, 3] crops) => (float[{batch}, {points}, 2] landmarks{scores}{presence})
            {{
                half = Slice(crops, start, stop, axis)
                level_half = Cast<to=1>(half)
                scaled = Div(level_half, full)
                left = ReduceMean<keepdims=0>(scaled, axes)
                column_left = Reshape(left, column3)
                moved = Mul(column_left, direction)
                landmarks = Add(template, moved)
                {scoring}
                {sensing}
            }}"""
        )
        tensors = {
            "start": np.array([0]),
            "stop": np.array([size // 2]),
            "axis": np.array([2]),
            "axes": np.array([1, 2, 3]),
            "full": np.float32(255),
            "column": np.array([-1, 1]),
            "column3": np.array([-1, 1, 1]),
            "direction": np.array([[8.0, 4.0]], np.float32),
            "template": template(points, size)[None],
            "zeros": np.zeros((1, points), np.float32),
        }
        model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items())
        return _save(
            model, spec.to_json() if metadata is None else metadata, tmp_path_factory.mktemp("model") / "tiny.onnx"
        )

    def _save(model: Any, text: str, path: Path) -> Path:
        import onnx

        onnx.helper.set_model_props(model, {"facelm": text} if text else {})
        onnx.save(model, path)
        return path

    return build


@pytest.fixture(scope="session")
def detector_model(tmp_path_factory: pytest.TempPathFactory) -> ModelFactory:
    """Writes a detector that finds one face a colour channel: the extent of its pixels above 127.

    Scores are 0.9, 0.8 and 0.7 for blue, green and red; faces narrower than ``smallest`` or wider than ``largest``
    detector pixels score ``doubt`` times as much.
    """

    def build(smallest: float = 4.0, largest: float = 1e4, metadata: str | None = None, doubt: float = 0.0) -> Path:
        import onnx
        from onnx import numpy_helper, parser

        spec = DetectorSpec(name="bright", det_thresh=0.5)
        model = parser.parse_model(
            """<ir_version: 8, opset_import: ["": 18]>
            bright (uint8[1, H, W, 3] image) => (float[k, 4] boxes, float[k] scores, float[k, 5, 2] kps)
            {
                picture = Squeeze(image, a0)
                level = Cast<to=1>(picture)
                lit = Greater(level, threshold)
                one = Cast<to=1>(lit)
                columns_f = ReduceMax<keepdims=0>(one, a0)
                rows_f = ReduceMax<keepdims=0>(one, a1)
                columns = Cast<to=9>(columns_f)
                rows = Cast<to=9>(rows_f)
                shape = Shape(picture)
                height = Gather(shape, i0)
                width = Gather(shape, i1)
                x_int = Range(i0, width, i1)
                y_int = Range(i0, height, i1)
                x_flat = Cast<to=1>(x_int)
                y_flat = Cast<to=1>(y_int)
                x = Unsqueeze(x_flat, a1)
                y = Unsqueeze(y_flat, a1)
                x_low = Where(columns, x, big)
                x_high = Where(columns, x, minus)
                y_low = Where(rows, y, big)
                y_high = Where(rows, y, minus)
                x_min = ReduceMin<keepdims=1>(x_low, a0)
                x_max = ReduceMax<keepdims=1>(x_high, a0)
                y_min = ReduceMin<keepdims=1>(y_low, a0)
                y_max = ReduceMax<keepdims=1>(y_high, a0)
                corners = Concat<axis=0>(x_min, y_min, x_max, y_max)
                corners_t = Transpose(corners)
                boxes = Add(corners_t, half)
                origin = Slice(boxes, s0, s2, a1)
                end = Slice(boxes, s2, s4, a1)
                size = Sub(end, origin)
                origin3 = Unsqueeze(origin, a1)
                size3 = Unsqueeze(size, a1)
                inside = Mul(size3, mean)
                kps = Add(origin3, inside)
                side = ReduceMax<keepdims=0>(size, a1)
                wide = GreaterOrEqual(side, smallest)
                narrow = LessOrEqual(side, largest)
                fits = And(wide, narrow)
                part = Where(fits, sure, doubt)
                scores = Mul(part, levels)
            }"""
        )
        mean = [(0.31, 0.42), (0.69, 0.42), (0.50, 0.62), (0.35, 0.80), (0.65, 0.80)]
        tensors: dict[str, Any] = {
            "a0": np.array([0]),
            "a1": np.array([1]),
            "i0": np.int64(0),
            "i1": np.int64(1),
            "s0": np.array([0]),
            "s2": np.array([2]),
            "s4": np.array([4]),
            "threshold": np.float32(127),
            "big": np.float32(1e6),
            "minus": np.float32(-1e6),
            "half": np.array([[-0.5, -0.5, 0.5, 0.5]], np.float32),
            "mean": np.array([mean], np.float32),
            "smallest": np.float32(smallest),
            "largest": np.float32(largest),
            "sure": np.float32(1),
            "doubt": np.float32(doubt),
            "levels": np.array([0.9, 0.8, 0.7], np.float32),
        }
        model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items())
        onnx.helper.set_model_props(model, {"facelm": spec.to_json() if metadata is None else metadata})
        path = tmp_path_factory.mktemp("model") / "bright.onnx"
        onnx.save(model, path)
        return path

    return build


@pytest.fixture(scope="session")
def scene() -> Callable[..., np.ndarray]:
    """A black picture (height, width, 3) with one filled box (x1, y1, x2, y2), ends exclusive, a colour channel."""

    def build(width: int, height: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
        picture = np.zeros((height, width, 3), np.uint8)
        for channel, (x1, y1, x2, y2) in enumerate(boxes):
            picture[y1:y2, x1:x2, channel] = 255
        return picture

    return build


@pytest.fixture
def embed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, str]]:
    """Makes a model file the only embedded one, ``tiny``, of a package whose weights lie in ``tmp_path``."""

    def build(model: Path) -> dict[str, str]:
        data = model.read_bytes()
        (tmp_path / "tiny.onnx").write_bytes(data)
        entry = {"name": "tiny", "file": "tiny.onnx", "sha256": hashlib.sha256(data).hexdigest(), "task": "landmarks"}
        (tmp_path / "manifest.json").write_text(json.dumps({"models": [entry]}))
        monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
        return entry

    return build
