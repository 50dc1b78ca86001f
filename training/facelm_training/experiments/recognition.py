"""Does alignment by landmarks help recognition? LOTR's table IV in kind (section IV-F of the paper).

``python -m facelm_training.experiments.recognition PICTURES --out DIR``

PICTURES holds NAME_VF.jpg, frame F of video V of a person, as udacity/P1_Facial_Keypoints has them of YouTube Faces. A
recogniser of a package (dlib's ResNet, ``pip install dlib-bin face_recognition_models``) embeds each face, cut
by five ways: the detector's box, its five points, the same five of the landmarks, all 68 landmarks as dlib aligns by
them, and dlib's own 68. The paper has TAR at FAR 1e-4 of another recogniser (LResNet100E-IR) and other pictures.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from facelm_sdk import Aligner, Face
from facelm_sdk.errors import InputError
from facelm_sdk.images.read import read_image
from facelm_sdk.transform import CropRecipe

from ..figures import new_figure
from . import write_results

SIZE, PADDING = 150, 0.25  # of dlib's recogniser
FARS = (1e-2, 1e-3, 1e-4)
RESAMPLED = 400
NAME = re.compile(r"(?P<person>.+)_(?P<video>\d)\d\.\w+")
BOX, DETECTOR, FIVE, ALL, DLIB = (
    "detector's box",
    "detector's five points",
    "five points of the landmarks",
    "68 landmarks",
    "dlib's 68 landmarks",
)


Distances = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""By way of alignment, of the pairs of one person (n,) and of two (m,)."""


@dataclass(frozen=True)
class Pairs:
    """``same``: of one person in two videos; ``other``: of two people. Indices (n, 2) of pictures."""

    same: NDArray[np.intp]
    other: NDArray[np.intp]

    @classmethod
    def of(cls, people: Sequence[str], videos: Sequence[str]) -> Pairs:
        """All pairs of pictures but those of one person in one video."""
        pairs = np.array([*itertools.combinations(range(len(people)), 2)], np.intp).reshape(-1, 2)
        person, video = np.asarray(people), np.asarray(videos)
        one = person[pairs[:, 0]] == person[pairs[:, 1]]
        return cls(pairs[one & (video[pairs[:, 0]] != video[pairs[:, 1]])], pairs[~one])


def accepted(same: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]], far: float) -> float:
    """TAR at FAR: the part of distances ``same`` (n,) below what a part ``far`` of ``other`` (m,) is below."""
    return float((same < np.quantile(other, far)).mean())


def _recogniser() -> tuple[Any, Any, Any]:
    """The dlib module, its network and its predictor of 68 points."""
    found = importlib.util.find_spec("face_recognition_models")
    try:
        import dlib
    except ImportError:
        dlib = None
    if dlib is None or found is None or not found.submodule_search_locations:
        raise InputError("the recogniser is that of two packages: pip install dlib-bin face_recognition_models")
    models = Path(found.submodule_search_locations[0], "models")
    network = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))
    return dlib, network, dlib.shape_predictor(str(models / "shape_predictor_68_face_landmarks.dat"))


def _shape(dlib: Any, face: Face) -> Any:
    points = dlib.points([dlib.point(round(float(x)), round(float(y))) for x, y in face.landmarks])
    return dlib.full_object_detection(_rectangle(dlib, face), points)


def _rectangle(dlib: Any, face: Face) -> Any:
    return dlib.rectangle(*(round(float(v)) for v in face.bbox))


def _template(dlib: Any, faces: Sequence[Face]) -> NDArray[np.float64]:
    """Where dlib's chips of ``faces`` have their five points (5, 2), in the mean: one scale and place for all ways."""
    found = []
    for face in faces:
        chip = dlib.get_face_chip_details(_shape(dlib, face), SIZE, PADDING)
        centre = np.array([chip.rect.dcenter().x, chip.rect.dcenter().y])
        cos, sin = np.cos(chip.angle), np.sin(chip.angle)
        turned = (face.to("kps5") - centre) @ np.array([[cos, -sin], [sin, cos]])
        found.append(turned * SIZE / chip.rect.width() + (SIZE - 1) / 2)
    return np.asarray(np.mean(found, 0))


def _upright(faces: Sequence[Face], template: NDArray[np.float64]) -> CropRecipe:
    """The crop by the detector's box that has the five points at the scale and place of ``template``, in the mean."""
    cut = CropRecipe(SIZE, "box")
    points = np.mean([cut.transform(box=face.bbox).apply(face.to("kps5")) for face in faces], 0)
    scale = float(np.linalg.norm(points[1] - points[0]) / np.linalg.norm(template[1] - template[0]))
    middle = (SIZE - 1) / 2
    sides = np.mean([(face.bbox[2:] - face.bbox[:2]) / np.ptp(face.bbox.reshape(2, 2), 0).max() for face in faces], 0)
    shift = (points.mean(0) - middle - scale * (template.mean(0) - middle)) / SIZE / sides
    return CropRecipe(SIZE, "box", scale=scale, shift=(float(shift[0]), float(shift[1])))


def chips(
    dlib: Any, predictor: Any, recipes: Sequence[CropRecipe], image: NDArray[np.uint8], face: Face
) -> dict[str, NDArray[np.uint8]]:
    """One face of a BGR picture cut in all ways: RGB chips (150, 150, 3). ``recipes``: by box and by five points."""
    rgb = np.ascontiguousarray(image[..., ::-1])
    upright, aligned = recipes
    return {
        BOX: upright.transform(box=face.bbox).warp(rgb),
        DETECTOR: aligned.transform(kps=face.kps).warp(rgb),
        FIVE: aligned.transform(kps=face.to("kps5")).warp(rgb),
        ALL: dlib.get_face_chip(rgb, _shape(dlib, face), SIZE, PADDING),
        DLIB: dlib.get_face_chip(rgb, predictor(rgb, _rectangle(dlib, face)), SIZE, PADDING),
    }


def _apart(embedded: Sequence[NDArray[np.float64]], pairs: NDArray[np.intp]) -> NDArray[np.float64]:
    values = np.asarray(embedded)
    return np.asarray(np.linalg.norm(values[pairs[:, 0]] - values[pairs[:, 1]], axis=1))


def table(distances: Distances) -> dict[str, dict[str, float]]:
    """TAR in percent at each FAR, by way of alignment."""
    return {
        way: {f"TAR at FAR {far:g}": round(100 * accepted(*both, far), 2) for far in FARS}
        for way, both in distances.items()
    }


def against(
    distances: Distances,
    base: str,
    groups: NDArray[np.intp],
    far: float,
) -> dict[str, list[float]]:
    """Points of TAR that each way gains over ``base``: mean, and the 95% interval over resampled people.

    ``groups`` (n,): of which person the pairs of one person are.
    """
    rng, people = np.random.default_rng(0), np.unique(groups)
    members = [np.flatnonzero(groups == person) for person in people]
    hits = {way: same < np.quantile(other, far) for way, (same, other) in distances.items()}
    gains: dict[str, list[float]] = {way: [] for way in distances if way != base}
    for _ in range(RESAMPLED):
        drawn = np.concatenate([members[index] for index in rng.integers(len(people), size=len(people))])
        for way, values in gains.items():
            values.append(100 * float(hits[way][drawn].mean() - hits[base][drawn].mean()))
    return {
        way: [
            round(float(v), 2)
            for v in (100 * (hits[way].mean() - hits[base].mean()), *np.quantile(values, (0.025, 0.975)))
        ]
        for way, values in gains.items()
    }


def draw(distances: Distances) -> Any:
    """TAR over FAR, a curve for each way."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    fars = np.logspace(-4.5, -1, 60)
    for way, both in distances.items():
        axes.plot(fars, [100 * accepted(*both, far) for far in fars], label=way)
    axes.set(xscale="log", xlabel="FAR", ylabel="TAR, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def main(
    pictures: Annotated[Path, typer.Argument(help="the folder with NAME_VF.jpg")],
    out: Annotated[Path, typer.Option(help="where recognition.json and .png go")],
    turned: Annotated[float, typer.Option(help="degrees of yaw from which a pair counts as turned")] = 25.0,
) -> None:
    """Compare five ways of alignment by how well a recogniser tells people apart."""
    dlib, network, predictor = _recogniser()
    named = [(path, match) for path in sorted(pictures.iterdir()) if (match := NAME.fullmatch(path.name))]
    if not named:
        raise InputError(f"{pictures} has no pictures NAME_VF.jpg, frame F of video V")
    aligner = Aligner()
    seen: list[tuple[re.Match[str], NDArray[np.uint8], Face]] = []
    for path, match in track(named, "faces"):
        image = read_image(path)
        if faces := aligner(image):
            seen.append((match, image, max(faces, key=lambda face: float(np.prod(face.bbox[2:] - face.bbox[:2])))))
    found = [face for _, _, face in seen]
    template = _template(dlib, found)
    recipes = _upright(found, template), CropRecipe(SIZE, "kps5", tuple((float(x), float(y)) for x, y in template))
    embedded: dict[str, list[NDArray[np.float64]]] = {}
    for _, image, face in track(seen, "embeddings"):
        for way, chip in chips(dlib, predictor, recipes, image, face).items():
            embedded.setdefault(way, []).append(np.array(network.compute_face_descriptor(np.ascontiguousarray(chip))))
    people = [match["person"] for match, _, _ in seen]
    pairs = Pairs.of(people, [match["video"] for match, _, _ in seen])
    groups = np.unique(people, return_inverse=True)[1][pairs.same[:, 0]]
    yaw = np.abs([face.pose.yaw for _, _, face in seen])
    distances = {way: (_apart(values, pairs.same), _apart(values, pairs.other)) for way, values in embedded.items()}
    hard = (yaw[pairs.same] >= turned).any(1)
    result = {
        "pictures": len(named),
        "with a face": len(seen),
        "people": len(set(people)),
        "pairs of one person": len(pairs.same),
        "pairs of two": len(pairs.other),
        "all": table(distances),
        f"one of the two turned by {turned:g} degrees and more": {
            "pairs of one person": int(hard.sum()),
            **table({way: (same[hard], other) for way, (same, other) in distances.items()}),
        },
        f"gain over the {DETECTOR} at FAR 0.001, points: mean, 95% interval over people": against(
            distances,
            DETECTOR,
            groups,
            1e-3,
        ),
    }
    command = "python -m facelm_training.experiments.recognition PICTURES --out training/results"
    write_results(out, "recognition", command, result, draw(distances))
    for way, row in table(distances).items():
        typer.echo(f"{way}: " + ", ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    typer.run(main)
