"""Turned photographs: faces of large poses, made from photographs of faces that look at the camera.

``python -m facelm_training.turned --data DIR --out DIR/turned68`` makes them from 300-W's training pictures; the data
set ``turned68`` reads them. With ``--faces 300w/common:300w --views 1 --out DIR/turned68_test`` they are of test faces,
for scores by yaw (``turned68/test``) and for nothing else.

A morphable head is fitted to a face's 68 points, which gives depth to every pixel; the picture is then turned about the
head's axis and looked at again, as 300W-LP was made (Zhu et al. 2016, "Face Alignment Across Large Poses: A 3D
Solution", section 5). The head is ICT-FaceKit's light model. Coordinates of pictures are (x, y) pixels; the head's are
centimetres with y up and z towards the viewer; depth is in pixels, larger is nearer.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import Progress

from facelm_sdk.errors import InputError
from facelm_sdk.files import write_bytes

from . import datasets
from .datasets.turned68 import LABELS

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]

FILE = "ict_face_model.npz"
SKIN = 11248  # vertices of face, head and neck come first
JAW = np.arange(17)
IDENTITIES, ROUNDS = 40, 8
LOOKS_ASIDE = 0.1  # sine of the yaw from which the contour is not where the jaw's own points are
WORST_FIT = 0.05  # of the eye distance: heads farther from their points are left out
SOURCES = ("300w/train/helen:300w", "300w/train/lfpw:300w")
SPREAD = 0.02  # of the eye distance: how far the fitted points may be from the annotated ones
FLIP_Y = np.array([1.0, -1.0, 1.0])


class Head:
    """ICT-FaceKit's morphable head.

    ``neutral`` (v, 3), ``shapes`` (k, v, 3) the first identity and all expression displacements, ``triangles`` (t, 3)
    of face, head and neck, ``landmarks`` (68,) vertex indices in iBUG order.
    """

    def __init__(self, path: Path) -> None:
        """Read ``ict_face_model.npz``. Raises InputError."""
        try:
            with np.load(path) as file:
                self.neutral = file["neutral"][:SKIN].astype(np.float64) * FLIP_Y
                identity, expression = file["identity"][:IDENTITIES, :SKIN], file["expression"][:, :SKIN]
                quads, self.landmarks = file["quads"], file["landmarks68"].astype(int)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is not {FILE}, the morphable head: {error}") from error
        self.identities = len(identity)
        self.shapes = np.concatenate([identity, expression]).astype(np.float64) * FLIP_Y
        quads = quads[(quads < SKIN).all(1)]
        triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
        self.triangles = triangles[triangles[:, 1] != triangles[:, 2]]
        self.contours = [self._contour(index) for index in range(len(JAW))]

    def _contour(self, index: int) -> NDArray[np.int64]:
        """Vertices that may be where the jaw's contour passes at the height of a jaw point, on its side of the face."""
        at = self.neutral[self.landmarks[index]]
        offset = self.neutral[:9409] - at
        level = np.abs(offset[:, 1]) < 0.35
        beside = (np.sign(self.neutral[:9409, 0]) == np.sign(at[0])) if abs(at[0]) > 1 else np.abs(offset[:, 0]) < 1
        return np.flatnonzero(level & beside & (offset[:, 2] > -1.0) & (np.linalg.norm(offset, axis=1) < 6))


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A head in a picture: ``vertices`` (v, 3) in pixels, x right, y down, z (depth) towards the viewer.

    ``rotation`` (3, 3) takes the head's axes (x right, y down, z to the viewer) to the picture's; ``scale`` is pixels a
    centimetre; ``error`` the distance of the points it was fitted to, as a fraction of the eye distance.
    """

    vertices: Floats
    rotation: Floats
    scale: float
    error: float

    @property
    def yaw(self) -> float:
        """Degrees; positive where the face looks to the picture's right."""
        return float(np.degrees(np.arctan2(self.rotation[0, 2], self.rotation[2, 2])))


def fit(head: Head, points: Floats) -> Fit:
    """Fit the head to 68 points (68, 2) of a picture under a scaled orthographic camera.

    Pose and shape are solved in turn; jaw points on the side that is turned away are those of the contour.
    """
    eyes = float(np.linalg.norm(points[36] - points[45]))
    chosen = head.landmarks.copy()
    coefficients = np.zeros(len(head.shapes))
    sigma = np.where(np.arange(len(coefficients)) < head.identities, 1.0, 0.4)
    weights = np.ones(68)
    weights[JAW] = 0.5
    for _ in range(ROUNDS):
        shape = head.neutral[chosen] + np.tensordot(coefficients, head.shapes[:, chosen], 1)
        rotation, scale, shift = _pose(shape, points, weights)
        # Ridge regression of the shape: residuals in units of SPREAD, coefficients in those of their own spread.
        basis = scale * np.einsum("ij,kpj->pik", rotation[:2], head.shapes[:, chosen]).reshape(136, -1)
        target = (points - shift - scale * head.neutral[chosen] @ rotation[:2].T).reshape(136)
        precision = np.repeat(weights, 2) / (SPREAD * eyes)
        design = np.concatenate([basis * precision[:, None], np.diag(1 / sigma)])
        wanted = np.concatenate([target * precision, np.zeros(len(coefficients))])
        coefficients = np.linalg.lstsq(design, wanted, rcond=None)[0]
        coefficients[head.identities :] = coefficients[head.identities :].clip(0, 1)
        whole = head.neutral + np.tensordot(coefficients, head.shapes, 1)
        turned = whole @ rotation.T
        for index, candidates in enumerate(head.contours):
            hidden = -rotation[0, 2] if index < 8 else rotation[0, 2]
            if len(candidates) and index != 8 and hidden > LOOKS_ASIDE:
                outermost = turned[candidates, 0] * (-1 if index < 8 else 1)
                chosen[index] = candidates[int(outermost.argmax())]
            else:
                chosen[index] = head.landmarks[index]
    vertices = scale * turned + np.array([*shift, 0.0])
    error = float(np.linalg.norm(vertices[chosen, :2] - points, axis=1).mean() / eyes)
    return Fit(vertices, rotation, scale, error)


def _pose(shape: Floats, points: Floats, weights: Floats) -> tuple[Floats, float, Floats]:
    """Rotation (3, 3), scale and shift (2,) that bring a shape (n, 3) closest to points (n, 2) of a picture."""
    mean = np.average(shape, axis=0, weights=weights)
    centre = np.average(points, axis=0, weights=weights)
    root = np.sqrt(weights)[:, None]
    affine = np.linalg.lstsq((shape - mean) * root, (points - centre) * root, rcond=None)[0].T
    u, s, v = np.linalg.svd(affine)
    rows = u @ v[:2]
    rotation = np.stack([*rows, np.cross(rows[0], rows[1])])
    scale = float(s.mean())
    return rotation, scale, centre - scale * rows @ mean


@dataclass(frozen=True, slots=True, eq=False)
class Turned:
    """A turned picture: ``image`` (H, W, 3), ``points`` (68, 2), and which of them are ``known`` (68,).

    Unknown are those of the contour on the side turned away, which slides over the skin, and what the face hides.
    ``rotation`` (3, 3) is as in :class:`Fit`.
    """

    image: Image
    points: NDArray[np.float32]
    known: NDArray[np.bool_]
    yaw: float
    rotation: Floats


def turn(image: Image, points: Floats, fitted: Fit, head: Head, yaw: float, pitch: float = 0.0) -> Turned:
    """Turn a picture (H, W, 3) by ``yaw`` degrees to the right and ``pitch`` degrees down about the head's axis."""
    height, width = image.shape[:2]
    depth = _depth(fitted.vertices, head.triangles, (height, width))
    nose, ears = fitted.vertices[head.landmarks[30]], fitted.vertices[head.landmarks[[0, 16]]].mean(0)
    pivot = ears + 0.25 * (ears - nose)
    rotation = _rotation(yaw, pitch)

    def moved(at: Floats) -> Floats:
        return np.asarray((at - pivot) @ rotation.T + pivot)

    # Every half pixel of the picture becomes a dot; near ones are drawn last.
    fine = cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    deep = cv2.resize(depth.astype(np.float32), (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    columns, rows = np.meshgrid(np.arange(2 * width), np.arange(2 * height))
    dots = moved(np.stack([columns / 2 - 0.25, rows / 2 - 0.25, deep], -1).reshape(-1, 3))
    order = np.argsort(dots[:, 2], kind="stable")
    x, y = (np.rint(dots[order, axis]).astype(int) for axis in (0, 1))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    canvas = np.zeros_like(image)
    empty = np.full((height, width), 255, np.uint8)
    canvas[y[inside], x[inside]] = fine.reshape(-1, 3)[order][inside]
    empty[y[inside], x[inside]] = 0
    canvas = np.asarray(cv2.inpaint(canvas, empty, 3, cv2.INPAINT_TELEA), np.uint8)

    at = np.concatenate([points, fitted.vertices[head.landmarks, 2:]], axis=1)
    placed = moved(at)
    turned = rotation @ fitted.rotation
    turned_yaw = float(np.degrees(np.arctan2(turned[0, 2], turned[2, 2])))
    known = np.ones(68, bool)
    if abs(turned_yaw) > 10:
        known[JAW[:8] if turned_yaw < 0 else JAW[9:]] = False
    surface = _depth(moved(fitted.vertices), head.triangles, (height, width), filled=False)
    nearest = np.rint(placed[:, :2]).astype(int).clip(0, [width - 1, height - 1])
    behind = surface[nearest[:, 1], nearest[:, 0]] - placed[:, 2] > 0.12 * np.linalg.norm(points[36] - points[45])
    return Turned(canvas, placed[:, :2].astype(np.float32), known & ~behind, turned_yaw, turned)


def _rotation(yaw: float, pitch: float) -> Floats:
    a, b = np.radians(yaw), np.radians(pitch)
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    return np.asarray(about_y @ about_x)


_CORNERS = np.array([(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)]) / 4


def _depth(vertices: Floats, triangles: NDArray[np.int64], size: tuple[int, int], *, filled: bool = True) -> Floats:
    """Depth of every pixel (H, W): of the head's nearest surface; beside it, ``filled``, falling off to a plane.

    Without ``filled`` it is -inf beside the head.
    """
    height, width = size
    dots = np.einsum("ck,tkd->tcd", _CORNERS, vertices[triangles]).reshape(-1, 3)
    x, y = np.rint(dots[:, 0]).astype(int), np.rint(dots[:, 1]).astype(int)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    depth = np.full((height, width), -np.inf)
    np.maximum.at(depth, (y[inside], x[inside]), dots[inside, 2])
    if not filled or not np.isfinite(depth).any():
        return depth
    beside = np.isinf(depth).astype(np.uint8)
    distance, labels = cv2.distanceTransformWithLabels(beside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    lookup = np.zeros(int(labels.max()) + 1)
    lookup[labels[beside == 0]] = depth[beside == 0]
    nearest = lookup[labels]
    plane = float(np.percentile(depth[beside == 0], 5))
    reach = 0.35 * float(np.ptp(vertices[:, 0]))
    fall = np.clip(distance / reach, 0, 1)
    result = np.where(beside == 0, depth, nearest + (plane - nearest) * fall)
    return np.asarray(cv2.GaussianBlur(result, (0, 0), max(1.0, 0.01 * float(np.ptp(vertices[:, 0])))))


def make(head: Head, samples: Iterable[datasets.Sample], out: Path, *, views: int = 1, seed: int = 0) -> int:
    """Write ``views`` turned pictures a face and their labels to a folder; returns how many.

    A face is turned further the way it looks, to a yaw of 25 to 60 degrees, and its pitch by up to 12.
    """
    names, points, known, yaws = [], [], [], []
    for number, sample in enumerate(samples):
        rng = np.random.default_rng([seed, number])
        image, annotated = sample.image(), sample.points.astype(np.float64)
        fitted = fit(head, annotated)
        if fitted.error > WORST_FIT:
            continue
        side = np.sign(fitted.yaw) if abs(fitted.yaw) > 8 else rng.choice([-1.0, 1.0])
        for view in range(views):
            wanted = side * max(rng.uniform(25, 60), abs(fitted.yaw))
            one = turn(image, annotated, fitted, head, wanted - fitted.yaw, rng.uniform(-12, 12))
            name = f"{sample.name.replace('/', '_').rpartition('.')[0]}_{view}.jpg"
            write_bytes(out / name, cv2.imencode(".jpg", one.image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
            names.append(name)
            points.append(one.points)
            known.append(one.known)
            yaws.append(one.yaw)
            side = -side if abs(fitted.yaw) <= 8 else side
    labels = io.BytesIO()
    np.savez(labels, name=names, points=np.stack(points), known=np.stack(known), yaw=np.array(yaws))
    write_bytes(out / LABELS, labels.getvalue())
    return len(names)


def main(
    data: Annotated[Path, typer.Option(help="the folder with ict_face_model.npz and 300w/")],
    out: Annotated[Path, typer.Option(help="where the pictures and their labels go")],
    faces: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:FOLDER", help="data sets below --data. (default: 300-W's training faces)"),
    ] = None,
    views: Annotated[int, typer.Option(help="turned pictures a face")] = 1,
    limit: Annotated[int | None, typer.Option(help="the first faces only, for a trial")] = None,
) -> None:
    """Turn faces to large poses, by default the training faces of 300-W."""
    head = Head(data / FILE)
    samples = [sample for spec in faces or SOURCES for sample in datasets.open_below(spec, data)][:limit]
    with Progress() as bar:
        count = make(head, bar.track(samples, description="turning"), out, views=views)
    typer.echo(f"{count} pictures in {out}")


if __name__ == "__main__":
    typer.run(main)
