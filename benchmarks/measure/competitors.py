"""Other people's landmark finders, timed in a process of their own: their packages need versions that ours do not.

``PYTHON competitors.py NAME PICTURE THREADS`` first prints one JSON line, ``{"version": ..., "found": points}`` or
``{"unavailable": reason}``; then one for each line of stdin: for a number the milliseconds of so many runs on PICTURE,
for the name of a picture in quotes its faces. It needs what the peer itself needs, numpy and OpenCV. The process is
kept to THREADS cores, as MediaPipe has no option for its threads.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

MOVES = (0, 2, 4, 6, 8, 6, 4, 2)
"""Pixels that a face has moved to the right in the frames of the video, which starts anew after the last."""


class Unavailable(Exception):
    """The peer is not installed, or lacks its weights."""


@dataclass(frozen=True)
class Face:
    """A face in pixels of its picture: x1, y1, x2, y2, and the points of a peer that has any, in its own order."""

    box: list[float]
    points: list[list[float]]


@dataclass(frozen=True)
class Peer:
    """``find`` takes a picture to its faces, BGR or, so that its own order is not held against it, ``rgb``."""

    version: str
    find: Callable[[Any], list[Face]]
    rgb: bool = False


def frames(image: Any) -> Any:
    """A picture as a video of a face that moves to and fro, for ever."""
    import numpy as np

    return cycle([np.ascontiguousarray(np.roll(image, move, axis=1)) for move in MOVES])


def _faces(points: Any) -> list[Face]:
    """Faces of (n, L, 2) points, which bound their boxes."""
    return [Face([*one.min(0).tolist(), *one.max(0).tolist()], one.tolist()) for one in points]


def mediapipe_static(threads: int) -> Peer:
    """FaceMesh with detection in each picture, one face at most."""
    return _face_mesh(static_image_mode=True, max_num_faces=1)


def mediapipe(threads: int) -> Peer:
    """FaceMesh with detection in each picture, five faces at most."""
    return _face_mesh(static_image_mode=True, max_num_faces=5)


def mediapipe_tracking(threads: int) -> Peer:
    """FaceMesh on a video: detection where no face is followed."""
    return _face_mesh(static_image_mode=False, max_num_faces=1)


def _face_mesh(**options: Any) -> Peer:
    try:
        import mediapipe
        import numpy as np

        mesh = mediapipe.solutions.face_mesh.FaceMesh(refine_landmarks=False, **options)
    except (ImportError, AttributeError) as error:
        raise Unavailable(f"MediaPipe with its FaceMesh (0.10.21 has it) is not installed: {error}") from error

    def find(image: Any) -> list[Face]:
        size = image.shape[1::-1]
        found = mesh.process(image).multi_face_landmarks or []
        return _faces(np.array([[point.x, point.y] for point in face.landmark]) * size - 0.5 for face in found)

    return Peer(metadata.version("mediapipe"), find, rgb=True)


def pfld(threads: int) -> Peer:
    """PFLD and the light detector of the same code, in onnxruntime: FACELM_BENCH_PFLD is a checkout of it."""
    import cv2
    import numpy as np

    folder = Path(os.environ.get("FACELM_BENCH_PFLD", ""))
    files = [folder / "models/onnx/version-RFB-320.onnx", folder / "onnx/pfld.onnx"]
    if not all(file.is_file() for file in files):
        raise Unavailable("no PFLD: FACELM_BENCH_PFLD is a checkout of github.com/cunjian/pytorch_face_landmark")
    try:
        import onnxruntime
    except ImportError as error:
        raise Unavailable(f"onnxruntime is not installed beside the peers: {error}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    detector, landmarker = (
        onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]) for file in files
    )
    names = [session.get_inputs()[0].name for session in (detector, landmarker)]

    def find(image: Any) -> list[Face]:
        height, width = image.shape[:2]
        small = (cv2.resize(image, (320, 240)).astype(np.float32) - 127) / 128
        scores, boxes = detector.run(None, {names[0]: small.transpose(2, 0, 1)[None]})
        likely = scores[0, :, 1] > 0.7
        scores, boxes = scores[0, likely, 1], boxes[0, likely] * (width, height, width, height)
        places = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes.tolist()]
        kept = np.array(cv2.dnn.NMSBoxes(places, scores.tolist(), 0.7, 0.3), int).ravel()
        return [Face(boxes[index].tolist(), points(image, boxes[index]).tolist()) for index in kept]

    def points(image: Any, box: Any) -> Any:
        side = 1.1 * max(box[2:] - box[:2])
        start = (box[:2] + box[2:] - side) / 2
        matrix = 112 / side * np.array([[1, 0, -start[0]], [0, 1, -start[1]]])
        crop = cv2.warpAffine(image, matrix, (112, 112)).astype(np.float32) / 255
        (found, *_) = landmarker.run(None, {names[1]: crop.transpose(2, 0, 1)[None]})
        return found.reshape(-1, 2) * side + start

    return Peer(f"onnxruntime {onnxruntime.__version__}", find, rgb=True)


def yunet(threads: int) -> Peer:
    """OpenCV's own detector, boxes alone, at the picture's size: FACELM_BENCH_YUNET is its file."""
    import cv2

    file = os.environ.get("FACELM_BENCH_YUNET", "")
    if not Path(file).is_file():
        raise Unavailable("no YuNet: FACELM_BENCH_YUNET is face_detection_yunet_2023mar.onnx of OpenCV's zoo")
    detector = cv2.FaceDetectorYN.create(file, "", (320, 320))

    def find(image: Any) -> list[Face]:
        detector.setInputSize(image.shape[1::-1])
        found = detector.detect(image)[1]
        return [] if found is None else [Face([*f[:2].tolist(), *(f[:2] + f[2:4]).tolist()], []) for f in found]

    return Peer(f"OpenCV {cv2.__version__}", find)


def insightface(threads: int) -> Peer:
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

    def find(image: Any) -> list[Face]:
        return [Face(face.bbox.tolist(), face.landmark_2d_106.tolist()) for face in app.get(image)]

    return Peer(metadata.version("insightface"), find)


def face_alignment(threads: int) -> Peer:
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
    return Peer(metadata.version("face-alignment"), lambda image: _faces(finder.get_landmarks(image) or []), rgb=True)


COMPETITORS: dict[str, Callable[[int], Peer]] = {
    "mediapipe_static": mediapipe_static,
    "mediapipe": mediapipe,
    "mediapipe_tracking": mediapipe_tracking,
    "pfld": pfld,
    "yunet": yunet,
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
        peer = COMPETITORS[name](threads)
    except (Unavailable, ImportError) as error:
        answer({"unavailable": str(error)})
        return

    def read(path: str) -> Any:
        image = cv2.imread(path)
        return image[..., ::-1].copy() if peer.rgb else image

    image = read(path)
    video = frames(image) if name.endswith("tracking") else repeat(image)
    found = peer.find(next(video))
    points = len(found[0].points) if found else 0
    answer({"version": peer.version, "found": points, **resident()})
    clock = time.process_time if os.environ.get("FACELM_BENCH_CLOCK") == "processor" else time.perf_counter
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, str):
            answer([[face.box, face.points] for face in peer.find(read(request))])
            continue
        times = []
        for _ in range(request):
            picture = next(video)
            start = clock()
            peer.find(picture)
            times.append(1000 * (clock() - start))
        answer(times)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
