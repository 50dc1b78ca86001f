"""Cold start: a fresh process from its first instruction to the first landmarks, and the memory it takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from facelm_sdk.bench import PICTURE

from .measure.competitor_process import PYTHON
from .measure.interleaved import Variant
from .measure.machine import THREADS

RSS = """
import json
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
rss, most = (int(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
print(json.dumps({"rss_mb": rss, "rss_peak_mb": most, "found": found}))
"""

FACELM = f"""
from facelm_sdk import Aligner
aligner = Aligner(threads={THREADS})
found = len(aligner({str(PICTURE)!r}))
"""

MEDIAPIPE = f"""
import cv2, mediapipe
mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1)
found = len(mesh.process(cv2.imread({str(PICTURE)!r})[..., ::-1].copy()).multi_face_landmarks)
"""

CODE = {
    "python": (sys.executable, "found = 1"),
    "onnxruntime_and_cv2": (sys.executable, "import cv2, numpy, onnxruntime\nfound = 1"),
    "facelm": (sys.executable, FACELM),
    "mediapipe": (PYTHON, MEDIAPIPE),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("who", list(CODE))
def test_cold_start(interleaved, who):
    def make(who):
        python, code = CODE[who]

        def start():
            done = subprocess.run([python, "-c", code + RSS], capture_output=True, text=True, env=environment(who))
            if done.returncode:
                pytest.skip(f"{who} does not start: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
            return json.loads(done.stdout.splitlines()[-1])

        def runs(count):
            found = []
            for _ in range(count):
                before = time.perf_counter()
                start()
                found.append(1000 * (time.perf_counter() - before))
            return found

        about = start()
        assert about["found"] == 1
        return Variant(runs=runs, info={key: round(about[key], 1) for key in ("rss_mb", "rss_peak_mb")})

    interleaved(("who",), make, rounds=4)


def environment(who):
    """A competitor's Python must not see this project's packages."""
    return {key: value for key, value in os.environ.items() if who != "mediapipe" or key != "PYTHONPATH"}
