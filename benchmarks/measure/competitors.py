"""Other people's landmark finders, timed in a process of their own: their packages need versions that ours do not.

``PYTHON competitors.py NAME PICTURE THREADS`` first prints one JSON line, ``{"version": ..., "found": points}`` or
``{"unavailable": reason}``; then, for each number on a line of stdin, one JSON line with the milliseconds of so many
runs. It needs what the peer itself needs, numpy and OpenCV. The process is kept to THREADS cores, as MediaPipe has no
option for its threads.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from itertools import cycle
from pathlib import Path
from typing import Any

MOVES = (0, 2, 4, 6, 8, 6, 4, 2)
"""Pixels that a face has moved to the right in the frames of the video, which starts anew after the last."""


class Unavailable(Exception):
    """The peer is not installed, or lacks its weights."""


def frames(image: Any) -> Any:
    """A picture as a video of a face that moves to and fro, for ever."""
    import numpy as np

    return cycle([np.ascontiguousarray(np.roll(image, move, axis=1)) for move in MOVES])


def mediapipe_static(image: Any, threads: int) -> tuple[str, Callable[[], int]]:
    """FaceMesh with detection in each picture."""
    mesh = _face_mesh(static_image_mode=True)
    rgb = image[..., ::-1].copy()  # its own channel order is not held against it
    return metadata.version("mediapipe"), lambda: _points(mesh.process(rgb))


def mediapipe_tracking(image: Any, threads: int) -> tuple[str, Callable[[], int]]:
    """FaceMesh on a video: detection where no face is followed."""
    mesh = _face_mesh(static_image_mode=False)
    video = frames(image[..., ::-1])
    return metadata.version("mediapipe"), lambda: _points(mesh.process(next(video)))


def _face_mesh(**options: Any) -> Any:
    try:
        import mediapipe

        return mediapipe.solutions.face_mesh.FaceMesh(max_num_faces=1, refine_landmarks=False, **options)
    except (ImportError, AttributeError) as error:
        raise Unavailable(f"MediaPipe with its FaceMesh (0.10.21 has it) is not installed: {error}") from error


def _points(result: Any) -> int:
    faces = result.multi_face_landmarks
    return len(faces[0].landmark) if faces else 0


def insightface(image: Any, threads: int) -> tuple[str, Callable[[], int]]:
    """A model pack on disk: FACELM_BENCH_INSIGHTFACE is its folder, .../models/NAME."""
    folder = os.environ.get("FACELM_BENCH_INSIGHTFACE")
    if not folder or not Path(folder).is_dir():
        raise Unavailable("no insightface pack: FACELM_BENCH_INSIGHTFACE is its folder, .../models/NAME")
    try:
        from insightface.app import FaceAnalysis
    except ImportError as error:
        raise Unavailable(f"insightface is not installed: {error}") from error
    pack = Path(folder).resolve()
    app = FaceAnalysis(
        name=pack.name,
        root=str(pack.parent.parent),
        allowed_modules=["detection", "landmark_2d_106"],
        providers=["CPUExecutionProvider"],
    )
    app.prepare(ctx_id=-1, det_size=(640, 640))

    def run() -> int:
        found = app.get(image)
        return len(found[0].landmark_2d_106) if found else 0

    return metadata.version("insightface"), run


def face_alignment(image: Any, threads: int) -> tuple[str, Callable[[], int]]:
    """FAN-4 with the package's own detector; its weights must lie in torch's cache already."""
    try:
        import face_alignment as package
        import torch
    except ImportError as error:
        raise Unavailable(f"face-alignment is not installed: {error}") from error
    torch.set_num_threads(threads)
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    if not any(cache.glob("2DFAN4*")) or not any(cache.glob("s3fd*")):
        raise Unavailable(f"face-alignment's weights (2DFAN4, s3fd) are not in {cache.name}/ of torch's cache")
    finder = package.FaceAlignment(package.LandmarksType.TWO_D, device="cpu", flip_input=False)
    rgb = image[..., ::-1].copy()

    def run() -> int:
        found = finder.get_landmarks(rgb)
        return len(found[0]) if found else 0

    return metadata.version("face-alignment"), run


COMPETITORS = {
    "mediapipe_static": mediapipe_static,
    "mediapipe_tracking": mediapipe_tracking,
    "insightface": insightface,
    "face_alignment": face_alignment,
}


def resident() -> dict[str, float]:
    """Megabytes of this process in memory, now and at most so far, where the system tells."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:  # not Linux
        return {}
    kilobytes = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    names = {"VmRSS": "rss_mb", "VmHWM": "rss_peak_mb"}
    return {names[key]: round(int(value) / 1024, 1) for key, value in kilobytes.items()}


def main(name: str, path: str, threads: int) -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")  # what a package prints to stdout must not come between
    os.dup2(2, 1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    try:
        import cv2

        cv2.setNumThreads(threads)
        version, run = COMPETITORS[name](cv2.imread(path), threads)
    except (Unavailable, ImportError) as error:
        answer({"unavailable": str(error)})
        return
    answer({"version": version, "found": run(), **resident()})
    for line in sys.stdin:
        found = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run()
            found.append(1000 * (time.perf_counter() - start))
        answer(found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
