"""Readers of the public landmark data sets, from their own files untouched.

    faces = datasets.open("wflw:/data/WFLW")            # the split that papers report: test
    faces = datasets.open("300w/train:/data/300W")
    faces[0].points, faces[0].image()

A data set is named ``name:DIR`` or ``name/part:DIR``, where parts are a split, a subset or a label:
``wflw/train:DIR``, ``wflw/pose:DIR``, ``300w/challenging:DIR``, ``landmarks68/train/original:DIR``.
"""

from __future__ import annotations

from pathlib import Path

from facelm_sdk.errors import InputError
from facelm_sdk.files import expand_user, is_folder

from . import aflw19, cofw, jd106, landmarks68, menpo, turned68, vw300, w300, w300lp, wflw
from .base import Dataset as Dataset
from .base import Info as Info
from .base import Metric as Metric
from .base import Sample as Sample
from .base import Split as Split
from .base import wrong_folder

READERS: dict[str, Info] = {
    info.name: info
    for info in (
        wflw.INFO,
        w300.INFO,
        w300lp.INFO,
        menpo.INFO,
        vw300.INFO,
        cofw.INFO,
        cofw.INFO68,
        aflw19.INFO,
        jd106.INFO,
        landmarks68.INFO,
        landmarks68.PORTRAITS_INFO,
        turned68.INFO,
    )
}


def names() -> list[str]:
    """The names of the data sets."""
    return list(READERS)


def open(spec: str, split: str | None = None) -> Dataset:
    """The faces of ``name:DIR`` or ``name/part:DIR``; ``split`` where the parts tell none, else the one papers report.

    Raises InputError where the name, a part or the folder is not right; the message says what is.
    """
    head, colon, folder = spec.partition(":")
    name, *parts = head.split("/")
    if name not in READERS or not colon or not folder:
        raise InputError(f"a data set is NAME:DIR or NAME/PART:DIR, with a NAME of {', '.join(READERS)}; got {spec!r}")
    info = READERS[name]
    chosen, subset, label = _parts(info, parts, split, spec)
    path = expand_user(folder)
    if not is_folder(path):
        wrong_folder(info, path, "")
    samples = tuple(info.read(path, chosen, label, subset))
    if subset != "full":
        samples = tuple(sample for sample in samples if subset in sample.subsets)
    if not samples:
        raise InputError(f"{path} has no faces of {head}")
    return Dataset(info, chosen, samples, subset, label)


def open_training(spec: str, split: str) -> Dataset:
    """:func:`open` with ``split`` where the spec names none of its own."""
    head = spec.partition(":")[0].split("/")
    splits = READERS[head[0]].splits if head[0] in READERS else ()
    return open(spec, None if any(part in splits for part in head[1:]) else split)


def open_below(spec: str, folder: str | Path) -> Dataset:
    """:func:`open` with the folder of ``spec`` taken below ``folder``, as recipes name their data sets."""
    head, _, below = spec.partition(":")
    return open(f"{head}:{Path(folder) / below}")


def _parts(info: Info, parts: list[str], split: str | None, spec: str) -> tuple[str, str, str]:
    """Split, subset and label from the parts of a spec."""
    given: dict[str, str] = {} if split is None else {"split": split}
    for part in parts:
        kinds = [kind for kind, values in _kinds(info).items() if part in values]
        if not kinds or given.setdefault(kinds[0], part) != part:
            _refuse(info, spec, part)
    subset, label = given.get("subset", "full"), given.get("label", info.labels[0])
    homes = [name for name, one in info.splits.items() if subset in one.subsets]
    chosen = given.get("split", info.default if info.default in homes else homes[0])
    if chosen not in homes:
        _refuse(info, spec, chosen)
    return chosen, subset, label


def _kinds(info: Info) -> dict[str, tuple[str, ...]]:
    subsets = dict.fromkeys(name for one in info.splits.values() for name in one.subsets)
    return {"split": tuple(info.splits), "subset": tuple(subsets), "label": tuple(filter(None, info.labels))}


def _refuse(info: Info, spec: str, part: str) -> None:
    known = "; ".join(f"{kind}s {', '.join(values)}" for kind, values in _kinds(info).items() if values)
    raise InputError(
        f"{part!r} is not a part of {info.name} or does not go with the others in {spec!r}; it has {known}"
    )
