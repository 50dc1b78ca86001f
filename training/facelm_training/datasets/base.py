"""What the readers share: a face of a data set, a data set, and how a wrong folder is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facelm_sdk import markup as markups
from facelm_sdk import metrics
from facelm_sdk.errors import ImageError, InputError
from facelm_sdk.files import is_file, is_folder
from facelm_sdk.types import ImageArray

from ..archives import decoded

LARGEST = 1e9
"""Pixels, or what else a data set says in numbers; none of its files means more."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One annotated face. Coordinates are (x, y) pixels of its picture, pixel centres at whole numbers.

    ``name`` tells the face from all others of its data set; ``points`` (L, 2) float32 in the order of ``markup``;
    ``norms`` the distances an error may be divided by: ``inter_ocular``, ``inter_pupil``, ``box`` and ``diag``;
    ``box`` (4,) float32 xyxy, ``kps5`` (5, 2) float32 and ``occluded`` (L,) bool where the data set has its own;
    ``known`` (L,) bool where the places of some points are guesses, which no network should learn; ``subsets`` the
    parts of the data set the face is in.
    """

    name: str
    source: Path | Callable[[], ImageArray]
    points: NDArray[np.float32]
    markup: str
    norms: Mapping[str, float]
    box: NDArray[np.float32] | None = None
    kps5: NDArray[np.float32] | None = None
    occluded: NDArray[np.bool_] | None = None
    known: NDArray[np.bool_] | None = None
    subsets: frozenset[str] = frozenset()

    def image(self) -> ImageArray:
        """The picture (H, W, 3) uint8 BGR, read now. Raises ImageError."""
        return read_stored(self.source) if isinstance(self.source, Path) else self.source()

    @property
    def landmark_box(self) -> NDArray[np.float32]:
        """The upright box (4,) xyxy around the points."""
        return metrics.bounding_box(self.points).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of a table: the normaliser, a key of ``Sample.norms``, and the threshold of FR and AUC, a fraction."""

    norm: str
    threshold: float


@dataclass(frozen=True, slots=True)
class Split:
    """What is known of a split: the faces of its subsets as published, in the order of the tables, and its metrics.

    The subset ``full`` is every face; the first metric is the usual one.
    """

    subsets: Mapping[str, int]
    metrics: tuple[Metric, ...]


@dataclass(frozen=True, slots=True)
class Info:
    """A kind of data set.

    ``layout`` says which files lie where; ``read`` takes the folder, the split, the label and the subset, of which it
    may give more than the faces asked for. ``labels`` are the annotations to choose from, the usual one first.
    ``home`` says where the data set is had and under which ``terms``; ``tops`` are the folders of the layout that its
    archives begin with.
    """

    name: str
    markup: str
    layout: str
    splits: Mapping[str, Split]
    read: Callable[[Path, str, str, str], list[Sample]]
    labels: tuple[str, ...] = ("",)
    default: str = "test"
    home: str = ""
    terms: str = ""
    tops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The faces of one split of a data set, or of one of its subsets; pictures are read when asked for."""

    info: Info
    split: str
    samples: tuple[Sample, ...] = field(repr=False)
    subset: str = "full"
    label: str = ""

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @property
    def title(self) -> str:
        """The data set as ``open`` is told: ``wflw/test``, ``wflw/test/pose``, ``landmarks68/val/original``."""
        parts = (self.info.name, self.split, "" if self.subset == "full" else self.subset, self.label)
        return "/".join(part for part in parts if part)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What the papers report on this split, the usual metric first."""
        return self.info.splits[self.split].metrics

    @property
    def published(self) -> int:
        """How many faces there are as published."""
        return self.info.splits[self.split].subsets[self.subset]

    def subsets(self) -> dict[str, NDArray[np.bool_]]:
        """The rows of the papers' tables: which faces (n,) are in each subset, those left out that have none."""
        names = self.info.splits[self.split].subsets if self.subset == "full" else (self.subset,)
        masks = {
            name: np.array([name in ("full", self.subset) or name in one.subsets for one in self.samples], bool)
            for name in names
        }
        return {name: mask for name, mask in masks.items() if mask.any()}

    def part(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Dataset:
        """The same data set with these faces only."""
        chosen = tuple(self.samples[int(index)] for index in indices)
        return Dataset(self.info, self.split, chosen, self.subset, self.label)


def read_stored(path: Path) -> ImageArray:
    """A picture (H, W, 3) uint8 BGR as its pixels are stored: annotators' tools did not turn pictures by their EXIF."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    return decoded(data, str(path), upright=False)


def build(
    markup: str,
    names: Sequence[str],
    sources: Iterable[Path | Callable[[], ImageArray]],
    points: ArrayLike,
    *,
    boxes: ArrayLike | None = None,
    normalise_by_boxes: bool = False,
    kps5: ArrayLike | None = None,
    occluded: ArrayLike | None = None,
    known: ArrayLike | None = None,
    subsets: Sequence[Iterable[str]] | None = None,
) -> list[Sample]:
    """Samples from arrays: ``points`` (n, L, 2), ``boxes`` (n, 4), ``kps5`` (n, 5, 2), ``occluded``, ``known`` (n, L).

    ``box`` and ``diag`` of ``norms`` are of the landmarks' box, or of ``boxes`` with ``normalise_by_boxes``. Raises
    InputError for numbers beyond LARGEST.
    """
    described = markups.get(markup)
    values = np.asarray(_moderate(points, "points"), np.float32).reshape(-1, described.num_points, 2)
    own = None if boxes is None else np.asarray(_moderate(boxes, "boxes"), np.float32).reshape(-1, 4)
    around = own if own is not None and normalise_by_boxes else metrics.bounding_box(values)
    norms = {
        "inter_ocular": metrics.inter_ocular(values, described),
        "inter_pupil": metrics.inter_pupil(values, described),
        "box": metrics.box_size(around),
        "diag": metrics.box_diagonal(around),
    }
    fives = None if kps5 is None else np.asarray(kps5, np.float32)
    hidden, sure = (None if one is None else np.asarray(one, bool) for one in (occluded, known))
    return [
        Sample(
            name=name,
            source=source,
            points=values[i],
            markup=markup,
            norms={kind: float(distances[i]) for kind, distances in norms.items()},
            box=None if own is None else own[i],
            kps5=None if fives is None else fives[i],
            occluded=None if hidden is None else hidden[i],
            known=None if sure is None else sure[i],
            subsets=frozenset(() if subsets is None else subsets[i]),
        )
        for i, (name, source) in enumerate(zip(names, sources, strict=True))
    ]


def _moderate(values: ArrayLike, what: str) -> NDArray[Any]:
    found = np.asarray(values)
    if (np.abs(found) > LARGEST).any():
        raise InputError(f"{what} reach as far as {np.nanmax(np.abs(found)):g} pixels; the file is damaged")
    return found


def wrong_folder(info: Info, folder: Path, lacking: str) -> NoReturn:
    """Raise InputError that says what a folder lacks and what such a folder holds."""
    what = "does not exist" if not is_folder(folder) else f"lacks {lacking}"
    raise InputError(f"{folder} is not a {info.name} folder: it {what}; expected is {info.layout}")


def first_of(info: Info, folder: Path, *candidates: str) -> Path:
    """The first of the candidates, paths under ``folder``, that exists. Raises InputError."""
    for candidate in candidates:
        if (folder / candidate).exists():
            return folder / candidate
    wrong_folder(info, folder, candidates[0])


def check_pictures(info: Info, folder: Path, paths: Sequence[Path]) -> None:
    """Raise InputError unless every picture is there."""
    missing = [path for path in dict.fromkeys(paths) if not is_file(path)]
    if missing:
        wrong_folder(info, folder, f"{len(missing)} pictures, the first of them {missing[0].relative_to(folder)}")


def read_arrays(info: Info, path: Path, **wanted: tuple[str, tuple[int | None, ...]]) -> list[NDArray[Any]]:
    """Arrays of an .npz file by name: each of a kind of numpy's ("U", "f", "b") and a shape, None where it is open.

    All are of as many faces as the first one. Raises InputError where the file is not so.
    """
    try:
        with np.load(path) as file:
            found = [np.asarray(file[name]) for name in wanted]
        for array in found:
            if array.dtype.kind == "U":
                for letter in "".join(array.ravel().tolist()):  # numpy does not look whether it is text
                    letter.encode()
    except MemoryError:
        raise
    except Exception as error:  # zipfile and numpy raise of every kind for a damaged file
        raise InputError(f"{path} cannot be read; it is damaged or lacks {', '.join(wanted)} ({error!r})") from error
    for (name, (kind, shape)), array in zip(wanted.items(), found, strict=True):
        sizes = tuple(size if want is None else want for size, want in zip(array.shape, shape, strict=False))
        if (
            array.dtype.kind not in kind
            or array.shape != sizes
            or len(shape) != array.ndim
            or len(array) != len(found[0])
        ):
            raise InputError(f"{path} holds {name} as {array.dtype} {array.shape}; the file is not that of {info.name}")
    return found


def read_text(path: Path) -> str:
    """An annotation file's text. Raises InputError."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def numbers(words: Sequence[str], what: str) -> NDArray[np.float64]:
    """Words as finite numbers (n,). Raises InputError, which begins with ``what``."""
    try:
        values = np.array(words, np.float64)
    except ValueError as error:
        raise InputError(f"{what}: {error}") from error
    if not np.isfinite(values).all() or (np.abs(values) > LARGEST).any():
        raise InputError(f"{what}: a number is not finite, or beyond {LARGEST:g}")
    return values
