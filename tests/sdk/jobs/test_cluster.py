"""The same job on a real Ray, of this machine: two actors, one of which is killed in the middle."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from facelm_sdk import jobs
from facelm_sdk.errors import InputError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the actors are looked for in /proc"),
]
ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "facelm-sdk[ray]"')


@pytest.fixture(scope="module")
def cluster():
    """A Ray of two cores, which jobs of this process use."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15, on a machine that does other work, is never
    try:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    except Exception as error:  # it has no class for that it waited half a minute in vain
        pytest.skip(f"Ray does not start here: {error}")
    yield
    ray.shutdown()


def actors():
    """The processes of the actors of this process's Ray, which has no dashboard to ask."""
    parents, found = {}, []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            _, _, rest = (process / "stat").read_text().rpartition(") ")
            parents[int(process.name)] = int(rest.split()[1])
            if (process / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                found.append(int(process.name))
    return [pid for pid in found if parents.get(parents[pid]) == os.getpid()]  # below it, the raylet


def test_an_actor_that_is_killed_changes_no_row(cluster, aligner, pictures, tmp_path, expected, same):
    killed = []

    def kill_one(now):
        if now.done >= 8 and not killed:
            victim, _ = actors()
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    out = tmp_path / "out.parquet"
    # By URL, as on an object store; the names in the list are paths.
    (tmp_path / "list.txt").write_text("\n".join(expected["source"].unique().to_pylist()))
    found = jobs.align(
        (tmp_path / "list.txt").as_uri(), out.as_uri(), aligner, workers=2, engine="ray", progress=kill_one
    )
    assert killed and found.pictures == 60 and found.failed == 1
    same(pq.read_table(out), expected)


def test_what_a_worker_raises_is_told_as_itself(cluster, aligner, tmp_path):
    pq.write_table(pa_table(["a.png"] * 4), tmp_path / "data.parquet")

    def change(now):
        pq.write_table(pa_table(["b.png"] * 9), tmp_path / "data.parquet")

    with pytest.raises(InputError, match=r"data.parquet has changed since the job began"):
        jobs.align(tmp_path / "data.parquet", tmp_path / "out.parquet", aligner, engine="ray", progress=change)


def pa_table(names):
    import pyarrow as pa

    return pa.table({"path": names})
