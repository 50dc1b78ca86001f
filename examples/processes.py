"""Pictures shared out among processes: an Aligner is pickled once to each, which opens its models there.

One process with `Aligner.batch` is enough for most; this is what Ray, Spark or a DataLoader's workers do.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

from facelm_sdk import Aligner

PICTURES = [str(path) for path in sorted(Path(__file__).with_name("pictures").glob("*.jpg"))]
worker: Aligner


def begin(aligner: Aligner) -> None:
    global worker
    worker = aligner


def count_faces(path: str) -> tuple[str, int]:
    return path, len(worker(path))


if __name__ == "__main__":
    aligner = Aligner(threads=1)
    with multiprocessing.get_context("spawn").Pool(2, begin, [aligner]) as pool:
        for path, count in pool.imap(count_faces, sys.argv[1:] or PICTURES):
            print(f"{path}: {count} faces")
