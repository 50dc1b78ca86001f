"""What a picture of a big job costs: ``python -m benchmarks.measure.big_jobs PICTURES/ -o RESULT.json``.

A job is run by one worker, and its pictures are aligned by a plain loop in a process of its own, in turns. Figures are
of processor time, which a machine that does other work as well stretches little.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from facelm_sdk.files import write_bytes
from facelm_sdk.machine import describe, versions

JOB = """
import sys, resource, json
from facelm_sdk import Aligner, jobs
aligner = Aligner(threads=1, licence_notice=False)
found = jobs.align([sys.argv[1]], sys.argv[2], aligner, workers=1)
peak = [resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"pictures": found.pictures, "faces": found.faces, "failed": found.failed, "peak_mb": peak}))
"""
LOOP = """
import sys, json
from pathlib import Path
from facelm_sdk import Aligner, table
aligner = Aligner(threads=1, licence_notice=False)
paths = [line for line in Path(sys.argv[1]).read_text().splitlines()]
rows = [row for path in paths for row in table.rows(aligner, path)]
print(json.dumps({"pictures": len(paths), "rows": len(rows)}))
"""


def run(code: str, *args: str) -> tuple[dict[str, object], float, float]:
    """What a Python process printed, its processor seconds with those of its children, and the clock's."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    output = subprocess.run([sys.executable, "-c", code, *args], check=True, stdout=subprocess.PIPE).stdout
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(output or b"{}"), cpu, wall


def enlarged(paths: list[Path], megapixels: float, folder: Path) -> list[Path]:
    """The pictures as JPEGs of that many megapixels."""
    import cv2

    made = []
    for path in paths:
        image = cv2.imread(str(path))
        zoom = (megapixels * 1e6 / image[..., 0].size) ** 0.5
        height, width = (round(side * zoom / 8) * 8 for side in image.shape[:2])
        made.append(folder / f"{path.stem}.jpg")
        cv2.imwrite(str(made[-1]), cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC))
    return made


def cost(code: str, paths: list[Path], folder: Path, rounds: int) -> dict[str, float]:
    """Milliseconds of the processor a further picture: of all of them three times, less once."""
    found: dict[str, list[float]] = {"cpu_ms": []}
    for index in range(rounds):
        times = []
        for repeat in (1, 3):
            listing = folder / "list.txt"
            listing.write_text("\n".join(map(str, paths * repeat)))
            times.append(run(code, str(listing), str(folder / f"{index}-{repeat}.parquet"))[1:2])
        for name, once, thrice in zip(found, *times, strict=True):
            found[name].append((thrice - once) / 2 / len(paths) * 1e3)
    return {name: round(statistics.median(values), 2) for name, values in found.items()}


def measure(paths: list[Path], rounds: int) -> dict[str, object]:
    """The cost of the pictures, by a job of one worker and by a plain loop."""
    import cv2
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        job = cost(JOB, paths, Path(folder), rounds)
        loop = cost(LOOP, paths, Path(folder), rounds)
        listing, out = Path(folder, "list.txt"), Path(folder, "all.parquet")
        listing.write_text("\n".join(map(str, paths)))
        found = run(JOB, str(listing), str(out))[0]
        group = pq.read_metadata(out).row_group(0)
        size = sum(group.column(index).total_compressed_size for index in range(group.num_columns))
    return {
        "pictures": len(paths),
        "faces": found["faces"],
        "failed": found["failed"],
        "megapixels": round(statistics.mean(cv2.imread(str(path))[..., 0].size / 1e6 for path in paths), 2),
        "file_kb": round(statistics.mean(path.stat().st_size for path in paths) / 1000, 1),
        **{f"job_{name}_a_picture": value for name, value in job.items()},
        **{f"loop_{name}_a_picture": value for name, value in loop.items()},
        "bytes_a_face": round(size / int(str(found["faces"]))),
        "peak_mb_of_run_and_worker": found["peak_mb"],
        "rounds": rounds,
    }


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--large", type=int, default=40, help="pictures that are also measured at 12 megapixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--note", default="", help="what else the machine did")
    options = parser.parse_args()
    found = sorted(path for folder in options.pictures for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    paths = found[:: max(1, len(found) // options.count)][: options.count]
    with tempfile.TemporaryDirectory() as folder:
        large = enlarged(paths[: options.large], 12, Path(folder))
        result = {
            "machine": {**describe(), "load": round(os.getloadavg()[0], 1), "note": options.note},
            "versions": versions(),
            "photos": measure(paths, options.rounds),
            "photos_of_12_megapixels": measure(large, options.rounds),
        }
    write_bytes(options.output, f"{json.dumps(result, indent=1)}\n".encode())


if __name__ == "__main__":
    main()
