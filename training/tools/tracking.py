"""Measure a Tracker on made-up videos, in which every face's landmarks are known.

``python training/tools/tracking.py --data DIR --out training/results/tracking.json --name NAME`` writes what it
measures beside what FILE holds under other names. ``--detect``: the Aligner in each frame, in the Tracker's place.

A video is a face of landmarks68 cut out softly, which moves over a picture without a face: it is panned, zoomed,
rolled, darkened, leaves the picture, jumps to another place, or is covered by a picture without a face, such as a hand;
the scene is cut to one without a face; or two faces cross. Faces and pictures are those that nothing was trained on;
``--split train`` takes others, to choose by. The Tracker follows as many faces as there are. By kind:

``nme``: mean error of the landmarks of faces in plain view, percent of the eye distance. ``false``: part of the frames
in which something is reported that is no face, or whose landmarks are a quarter of the eye distance off. ``missed``:
part of the faces in plain view that are not reported. ``detections`` and ``looks`` a frame: runs of the detector on the
picture, and on 64 pixels of one face. ``switches``: how often a face that was not gone has another number than before,
or any face that of another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from facelm_sdk import Aligner, Face, Tracker, zoo
from facelm_sdk import markup as markups
from facelm_sdk.files import write_bytes
from facelm_sdk.types import ImageArray
from facelm_training import datasets
from facelm_training.negatives import read_negatives

Floats = NDArray[np.float64]
WIDTH, HEIGHT, FRAMES = 320, 240, 50
MIDDLE = np.array([WIDTH, HEIGHT]) / 2
SIDE = 256
"""Pixels of a picture that is laid over another; a face's box is a bit less than half of it."""
FAR = 0.25
"""Eye distances from which landmarks are not that face's."""
IN_VIEW, GONE = 0.9, 0.2
"""Part of its points that is seen of a face in plain view, at least, and of one that should be lost, at most."""
LOOK = 64


@dataclass(frozen=True)
class Layer:
    """A picture (256, 256, 3), how much of it covers what is behind it, and the landmarks of the face in it."""

    picture: ImageArray
    alpha: NDArray[np.float32]
    points: Floats | None = None


@dataclass(frozen=True)
class Place:
    """Where a layer lies in a frame: its centre, its side in pixels, its roll in degrees."""

    layer: Layer
    centre: Floats
    side: float = 150.0
    roll: float = 0.0

    @property
    def matrix(self) -> Floats:
        matrix = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), self.roll, self.side / SIDE)
        matrix[:, 2] += self.centre - (SIDE - 1) / 2
        return np.asarray(matrix, np.float64)


@dataclass(frozen=True)
class Shown:
    """A face in a frame: its landmarks, and the part of them that is seen."""

    points: Floats
    seen: float


@dataclass(frozen=True)
class Cast:
    """What a video is made of, and its own random numbers in [-1, 1]."""

    faces: Sequence[Layer]
    cover: Layer
    scenes: Sequence[ImageArray]
    chance: Floats


def _sway(time: float, cast: Cast) -> Floats:
    """A slow small motion, as of somebody who sits."""
    turns = 2 * np.pi * time + np.pi * cast.chance[:2]
    return MIDDLE + np.array([8.0, 5.0]) * np.sin(turns) + np.array([40.0, 12.0]) * cast.chance[2:4]


def _pan(time: float, cast: Cast) -> list[Place]:
    turns = 2 * np.pi * time * np.array([1.5, 1.0]) + np.pi * cast.chance[:2]
    return [Place(cast.faces[0], MIDDLE + np.array([100.0, 50.0]) * np.sin(turns), 130.0)]


def _zoom(time: float, cast: Cast) -> list[Place]:
    side = 140.0 * np.exp(0.75 * np.sin(2 * np.pi * time + np.pi * cast.chance[4]))
    return [Place(cast.faces[0], MIDDLE + 8.0 * cast.chance[:2], side)]


def _roll(time: float, cast: Cast) -> list[Place]:
    return [Place(cast.faces[0], _sway(time, cast), roll=50.0 * np.sin(2 * np.pi * time + np.pi * cast.chance[4]))]


def _leave(time: float, cast: Cast) -> list[Place]:
    way = np.array([np.sign(cast.chance[5]) * (WIDTH / 2 + 100.0), 25.0 * cast.chance[6]])
    return [Place(cast.faces[0], MIDDLE + way * np.sin(np.pi * time))]


def _jump(time: float, cast: Cast) -> list[Place]:
    step = int(time * 5)
    return [Place(cast.faces[0], MIDDLE + np.array([75.0, 40.0]) * cast.chance[10 + 2 * step : 12 + 2 * step])]


def _cover(time: float, cast: Cast) -> list[Place]:
    centre = _sway(time, cast)
    offset = np.clip(np.abs(time - 0.5) - 0.15, 0, None) * np.sign(time - 0.5) * 800.0
    return [Place(cast.faces[0], centre), Place(cast.cover, centre + np.array([offset, 10.0 * cast.chance[7]]), 130.0)]


def _cut(time: float, cast: Cast) -> list[Place]:
    return [] if 0.4 <= time < 0.75 else [Place(cast.faces[0], _sway(time, cast))]


def _dark(time: float, cast: Cast) -> list[Place]:
    return [Place(cast.faces[0], _sway(time, cast))]


def _cross(time: float, cast: Cast) -> list[Place]:
    way = np.array([100.0 * np.cos(np.pi * time), 10.0 * cast.chance[8]])
    return [Place(cast.faces[0], MIDDLE - way, 130.0), Place(cast.faces[1], MIDDLE + way, 145.0)]


KINDS: Mapping[str, Callable[[float, Cast], list[Place]]] = {
    "pan": _pan,
    "zoom": _zoom,
    "roll": _roll,
    "dark": _dark,
    "leave": _leave,
    "jump": _jump,
    "cover": _cover,
    "cut": _cut,
    "cross": _cross,
}


def paint(scene: ImageArray, places: Sequence[Place]) -> tuple[NDArray[np.float32], list[Shown]]:
    """A frame (H, W, 3) of layers, the later before the earlier, and its faces."""
    frame, size = scene.astype(np.float32), (scene.shape[1], scene.shape[0])
    alphas = []
    for place in places:
        alpha = cv2.warpAffine(place.layer.alpha, place.matrix, size)[..., None]
        picture = cv2.warpAffine(place.layer.picture, place.matrix, size)
        frame += alpha * (picture - frame)
        alphas.append(alpha[..., 0])
    shown = []
    for index, place in enumerate(places):
        if place.layer.points is not None:
            points = place.layer.points @ place.matrix[:, :2].T + place.matrix[:, 2]
            seen = ((points >= 0) & (points < size)).all(1)
            x, y = np.clip(points, 0, np.array(size) - 1).astype(int).T
            for alpha in alphas[index + 1 :]:
                seen &= alpha[y, x] < 0.5
            shown.append(Shown(points, float(seen.mean())))
    return frame, shown


def video(kind: str, cast: Cast) -> Iterator[tuple[ImageArray, list[Shown]]]:
    """The frames of a video with the faces of each, those that are not seen among them."""
    noise = np.random.default_rng(0).normal(0, 2, (HEIGHT, WIDTH, 3)).astype(np.float32)
    for number in range(FRAMES):
        time = number / FRAMES
        places = KINDS[kind](time, cast)
        frame, shown = paint(cast.scenes[0 if places else 1], places)
        light = 0.15 + 0.85 * np.cos(np.pi * time) ** 2 if kind == "dark" else 1.0
        yield np.clip(frame * np.float32(light) + np.roll(noise, 7919 * number), 0, 255).astype(np.uint8), shown


@dataclass
class Count:
    """What is counted over the videos of a kind, frame by frame."""

    frames: int = 0
    false: int = 0
    in_view: int = 0
    missed: int = 0
    switches: int = 0
    sides: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def start(self) -> None:
        """A video begins."""
        self.number: dict[int, int] = {}
        self.owner: dict[int, int] = {}

    def add(self, found: Sequence[Face], shown: Sequence[Shown]) -> None:
        """One frame: the faces reported and those that are there."""
        eyes = markups.get("ibug68").outer_eye_corners
        free = [face.to("ibug68").astype(np.float64) for face in found]
        ids = [face.track_id for face in found]
        self.frames += 1
        for index, face in enumerate(shown):
            if face.seen <= GONE:
                self.number.pop(index, None)
                continue
            unit = np.linalg.norm(face.points[eyes[0]] - face.points[eyes[1]])
            errors = [float(np.linalg.norm(one - face.points, axis=1).mean() / unit) for one in free]
            best = int(np.argmin(errors)) if errors else -1
            matched = bool(errors) and errors[best] < (FAR if face.seen >= IN_VIEW else 1.0)
            if face.seen >= IN_VIEW:
                self.in_view += 1
                self.missed += not matched
            if not matched:
                continue
            if face.seen >= IN_VIEW:
                self.errors.append(errors[best])
            del free[best]
            number = ids.pop(best)
            if number is not None:
                new = self.number.get(index, number) != number or self.owner.get(number, index) != index
                self.switches += new
                self.number[index], self.owner[number] = number, index
        self.false += bool(free)

    def figures(self) -> dict[str, Any]:
        """The figures of a kind, as the module says."""
        looks = self.sides.count(LOOK)
        return {
            "frames": self.frames,
            "nme": round(100 * float(np.mean(self.errors)), 2) if self.errors else None,
            "false": round(self.false / self.frames, 4),
            "missed": round(self.missed / max(self.in_view, 1), 4),
            "detections": round((len(self.sides) - looks) / self.frames, 4),
            "looks": round(looks / self.frames, 4),
            "switches": self.switches,
        }


class Counted:
    """A detector's session that writes down the sides of the pictures it is shown."""

    def __init__(self, session: Any) -> None:
        self._session, self.spec, self.providers = session, session.spec, session.providers
        self.sides: list[int] = []

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        self.sides.append(max(feeds["image"].shape[1:3]))
        return list(self._session.run(feeds))


def casts(data: Path, split: Literal["train", "val"], count: int) -> list[Cast]:
    """What ``count`` videos of each kind are made of."""
    rng = np.random.default_rng(0)
    samples = list(datasets.open_below(f"landmarks68/{split}:.", data))
    part: Literal["test", "calibration"] = "test" if split == "val" else "calibration"
    without = list(read_negatives(data / "negatives", part).items())
    y, x = (np.indices((SIDE, SIDE)) - (SIDE - 1) / 2) / (SIDE / 2)
    oval = np.clip((1.0 - np.hypot(x / 0.85, y)) * 6, 0, 1).astype(np.float32)
    box = np.clip((1.0 - np.maximum(np.abs(x), np.abs(y))) * 20, 0, 1).astype(np.float32)

    def some_face() -> Layer:
        sample = samples[rng.integers(len(samples))]
        return Layer(sample.image(), oval, sample.points.astype(np.float64))

    def some(size: tuple[int, int], kinds: tuple[str, ...]) -> ImageArray:
        chosen = [image for name, image in without if name.startswith(kinds)]
        return np.asarray(cv2.resize(chosen[rng.integers(len(chosen))], size, interpolation=cv2.INTER_AREA), np.uint8)

    every = ("scene", "coco", "hand", "dog", "cat")
    return [
        Cast(
            [some_face(), some_face()],
            Layer(some((SIDE, SIDE), every[2:]), box),
            [some((WIDTH, HEIGHT), every[:2]), some((WIDTH, HEIGHT), every)],
            rng.uniform(-1, 1, 20),
        )
        for _ in range(count)
    ]


def measure(
    casts: Sequence[Cast], landmarks: str, *, detect: bool, tracker: Callable[..., Any] = Tracker
) -> dict[str, dict[str, Any]]:
    """The figures of each kind, and of all."""
    aligner = Aligner(landmarks, variant="fp32", licence_notice=False)
    assert aligner.detector is not None
    session = aligner.detector.session = Counted(aligner.detector.session)
    total, result = Count(), {}
    for kind in track(KINDS, "videos"):
        session.sides, count = [], Count()
        for cast in casts:
            aligner.max_faces = 2 if kind == "cross" else 1
            faces = aligner if detect else tracker(aligner)
            count.start()
            for frame, shown in video(kind, cast):
                count.add(faces(frame), shown)
        count.sides = session.sides
        result[kind] = count.figures()
        for name, value in vars(total).items():
            setattr(total, name, value + getattr(count, name))
    return {**result, "all": total.figures()}


def main(
    data: Annotated[Path, typer.Option(help="the folder with landmarks68.npz and negatives/")],
    out: Annotated[Path, typer.Option(metavar="FILE.json")],
    name: Annotated[str, typer.Option(help="under which the figures stand in FILE")],
    landmarks: Annotated[str, typer.Option(help="a landmark model's name or file")] = zoo.LANDMARKS,
    detect: Annotated[bool, typer.Option("--detect", help="detect in each frame in place of tracking")] = False,
    split: Annotated[str, typer.Option(help="of faces and pictures: val or train")] = "val",
    count: Annotated[int, typer.Option(help="videos of each kind")] = 5,
) -> None:
    """Measure a Tracker on made-up videos."""
    figures = measure(casts(data, "val" if split == "val" else "train", count), landmarks, detect=detect)
    record = json.loads(out.read_text()) if out.is_file() else {}
    write_bytes(out, (json.dumps({**record, name: figures}, indent=1) + "\n").encode())
    typer.echo(json.dumps(figures, indent=1))


if __name__ == "__main__":
    typer.run(main)
