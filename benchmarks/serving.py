"""``python -m benchmarks.serving -o FILE``: ``facelm serve`` under load, beside plain calls in turns.

Clients and server are kept to the cores of this process (``taskset -c 1 ...``). Each client sends a picture, waits for
the answer and sends the next one; a patient one waits as long as ``Retry-After`` says where it was refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray

from facelm_sdk import Aligner, Landmarker, machine
from facelm_sdk.files import write_bytes
from facelm_sdk.images.picture import Picture
from facelm_sdk.interop import record
from facelm_sdk.runtimes.base import Session

PICTURE = Path(__file__).resolve().parents[1] / "examples" / "pictures" / "closeup.jpg"
THREADS = 8


@dataclass
class Load:
    """What one turn of a load gave."""

    seconds: float = 0.0
    cpu: float = 0.0  # seconds of the server, or of the plain calls
    ms: list[float] = field(default_factory=list)  # of the requests answered with faces
    refused_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    memory: float = 0.0  # bytes resident at the end


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a .json; a table is written beside it")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=machine.usable_cores())
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument("--note", default="", help="what else the machine does")
    args = parser.parse_args()
    data = PICTURE.read_bytes()
    places = args.workers + args.queue
    clients = {
        "below: 1 client": (1, False),
        f"{args.workers + 1} clients": (args.workers + 1, False),
        f"at: {places} clients": (places, False),
        f"above: {4 * places} patient clients": (4 * places, True),
        f"above: {4 * places} clients that do not wait": (4 * places, False),
    }
    together = f"plain calls in {THREADS} threads"
    names = ["plain calls", together, f"{together}, their crops in shared runs", *clients]
    loads: dict[str, list[Load]] = {name: [] for name in names}
    with server(args.workers, args.queue) as address:
        asyncio.run(requests(address, data, 2, False, 2.0))
        for _ in range(args.rounds):
            for name, (threads, shared) in zip(names, ((1, False), (THREADS, False), (THREADS, True)), strict=False):
                loads[name].append(plain(data, args.seconds, threads, shared=shared))
            for name, (count, patient) in clients.items():
                cpu = metrics(address)["process_cpu_seconds_total"]
                load = asyncio.run(requests(address, data, count, patient, args.seconds))
                found = metrics(address)
                load.cpu, load.memory = found["process_cpu_seconds_total"] - cpu, found["process_resident_memory_bytes"]
                loads[name].append(load)
    result = {
        "machine": machine.describe() | {"note": args.note},
        "versions": machine.versions(),
        "picture": {"name": PICTURE.name, "bytes": len(data)},
        "settings": {name: getattr(args, name) for name in ("workers", "queue", "seconds", "rounds")},
        "loads": {name: [told(turn) for turn in turns] for name, turns in loads.items()},
    }
    write_bytes(args.output, f"{json.dumps(result, indent=1)}\n".encode())
    table = markdown(result)
    write_bytes(args.output.with_suffix(".md"), table.encode())
    sys.stdout.write(table)


@contextmanager
def server(workers: int, queue: int) -> Iterator[tuple[str, int]]:
    """A server as a process of its own; its host and port."""
    command = [sys.executable, "-m", "facelm_sdk", "serve", "--port", "0"]
    command += ["--workers", str(workers), "--queue", str(queue)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if (match := re.search(r"http://([\d.]+):(\d+)", line)) is not None:
                yield match[1], int(match[2])
                break
        process.send_signal(signal.SIGTERM)


def metrics(address: tuple[str, int]) -> dict[str, float]:
    """The server's metrics that have no label."""
    with urlopen("http://{}:{}/metrics".format(*address), timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if line[0] != "#" and "{" not in line}


class SharedRuns:
    """A landmark model's session that runs the crops of all threads that wait as one batch: what no server here does.

    While one runs, the others gather; so nobody waits for crops that are not there yet.
    """

    def __init__(self, session: Session) -> None:
        self.spec, self.providers, self._session = session.spec, session.providers, session
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._waiting: list[tuple[NDArray[Any], list[NDArray[Any]]]] = []

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of these crops."""
        outputs: list[NDArray[Any]] = []
        with self._lock:
            self._waiting.append((feeds["crops"], outputs))
        with self._turn:
            if not outputs:  # nobody has run them
                with self._lock:
                    batch, self._waiting = self._waiting, []
                found = self._session.run({"crops": np.concatenate([crops for crops, _ in batch])})
                start = 0
                for crops, own in batch:
                    own += [output[start : start + len(crops)] for output in found]
                    start += len(crops)
        return outputs


def plain(data: bytes, seconds: float, threads: int, *, shared: bool) -> Load:
    """Calls of an Aligner, one after the other in each thread, up to the JSON."""
    aligner = Aligner(licence_notice=False)
    if shared:
        aligner = Aligner(Landmarker(SharedRuns(aligner.landmarker.session)))
    aligner(data)
    load = Load()

    def calls(_: int) -> None:
        while time.perf_counter() < began + seconds:
            start = time.perf_counter()
            picture = Picture(data)
            json.dumps(record("", picture, aligner(picture), aligner))
            load.ms.append((time.perf_counter() - start) * 1e3)

    cpu, began = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(calls, range(threads)))
    load.seconds, load.cpu = time.perf_counter() - began, time.process_time() - cpu
    load.statuses[200] = len(load.ms)
    return load


async def requests(address: tuple[str, int], data: bytes, clients: int, patient: bool, seconds: float) -> Load:
    """The requests of so many clients, each with a connection."""
    load, began = Load(), time.perf_counter()
    head = f"POST /v1/faces HTTP/1.1\r\nHost: here\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
    request = head.encode() + data

    async def client() -> None:
        reader, writer = await asyncio.open_connection(*address)
        while time.perf_counter() < began + seconds:
            start = time.perf_counter()
            writer.write(request)
            await writer.drain()
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer)[1]))  # type: ignore[index]
            status = int(answer.split()[1])
            load.statuses[status] += 1
            (load.ms if status == 200 else load.refused_ms).append((time.perf_counter() - start) * 1e3)
            if status == 503 and patient:
                await asyncio.sleep(float(re.search(rb"retry-after: (\d+)", answer)[1]))  # type: ignore[index]
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    load.seconds = time.perf_counter() - began
    return load


def told(load: Load) -> dict[str, Any]:
    """A turn's figures."""
    p50, p99 = np.percentile(load.ms, (50, 99)) if load.ms else (float("nan"),) * 2
    return {
        "answers_per_second": round(len(load.ms) / load.seconds, 2),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "refused_p50_ms": round(statistics.median(load.refused_ms), 2) if load.refused_ms else None,
        "cpu_ms_per_answer": round(load.cpu / max(1, len(load.ms)) * 1e3, 2),
        "statuses": {str(status): count for status, count in sorted(load.statuses.items())},
        "memory_mb": round(load.memory / 1e6, 1) if load.memory else None,
    }


def markdown(result: dict[str, Any]) -> str:
    """The table: the median of the turns; its rates as a ratio to the plain calls of the same round."""
    about, settings = result["machine"], result["settings"]
    plain_rates = [turn["answers_per_second"] for turn in result["loads"]["plain calls"]]
    lines = [
        "# `facelm serve` under load",
        "",
        f"{about['cpu']}, {about['cores']} core(s) for server and clients together. {about['note']}".strip(),
        f"{settings['workers']} worker(s), a queue of {settings['queue']}, {result['picture']['name']}; the median of "
        f"{settings['rounds']} turns of {settings['seconds']:g} s each, taken in turns with plain calls.",
        "",
        "| load | answers a second | of plain calls | p50 ms | p99 ms | CPU ms an answer | refused | their p50 ms "
        "| memory MB, first and last turn |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, turns in result["loads"].items():

        def middle(key: str, turns: list[dict[str, Any]] = turns) -> str:
            values = [turn[key] for turn in turns if turn[key] is not None]
            return f"{statistics.median(values):.1f}" if values else ""

        ratios = [turn["answers_per_second"] / one for turn, one in zip(turns, plain_rates, strict=True)]
        count = sum(sum(turn["statuses"].values()) for turn in turns)
        refused = sum(turn["statuses"].get("503", 0) for turn in turns)
        others = sum(n for turn in turns for status, n in turn["statuses"].items() if status not in ("200", "503"))
        assert not others, turns
        memory = [turn["memory_mb"] for turn in turns]
        lines.append(
            f"| {name} | {middle('answers_per_second')} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {middle('p50_ms')} | {middle('p99_ms')} "
            f"| {middle('cpu_ms_per_answer')} | {refused / count:.0%} | {middle('refused_p50_ms')} "
            f"| {'' if memory[0] is None else f'{memory[0]:.0f}, {memory[-1]:.0f}'} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
