"""Model repositories in Triton's own server: ``FACELM_TRITON`` is a virtual environment with nvidia-pytriton."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from facelm_export.formats.triton import model_files
from facelm_sdk import zoo
from facelm_sdk.contract import ModelSpec
from facelm_sdk.runtimes.onnxruntime import OrtSession

KINDS = {"UINT8": np.uint8, "FP32": np.float32}


@pytest.fixture(scope="module")
def triton():
    """The folder of nvidia-pytriton's server."""
    home = Path(os.environ.get("FACELM_TRITON", "nowhere")).absolute()
    found = next(home.glob("lib/python3*/site-packages/pytriton/tritonserver"), None)
    if found is None:
        pytest.skip("FACELM_TRITON is no environment with nvidia-pytriton")
    return found


@pytest.fixture(scope="module")
def server(triton, tmp_path_factory):
    """The embedded landmark model and detector in Triton: its address, its log and the sessions to compare with."""
    folder = tmp_path_factory.mktemp("triton")
    sessions = {}
    for name in (zoo.LANDMARKS, zoo.DETECTOR):
        data = zoo.resolve(name).path.read_bytes()
        sessions[name] = OrtSession(data)
        for path, content in model_files(folder / "repository", data, sessions[name].spec, 16)[0].items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    site = triton.parents[1]
    python = next(triton.glob(f"python_backend_stubs/{site.parent.name.removeprefix('python')}/*"))
    shutil.copytree(triton / "backends", folder / "backends")
    shutil.copy(python, folder / "backends" / "python")
    (folder / "backends" / "onnxruntime").mkdir()
    shutil.copy(Path(__file__).with_name("triton_backend.py"), folder / "backends" / "onnxruntime" / "model.py")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [triton / "bin" / "tritonserver", f"--model-repository={folder / 'repository'}"]
    command += [f"--backend-directory={folder / 'backends'}", "--http-address=127.0.0.1", f"--http-port={port}"]
    command += ["--allow-grpc=false", "--allow-metrics=false"]
    environment = {
        "PATH": f"{site.parents[2] / 'bin'}:/usr/bin:/bin",
        "PYTHONPATH": str(site),
        "LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs"),
    }
    log = folder / "log"
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as running:
        try:
            address = f"http://127.0.0.1:{port}/v2"
            for _ in range(240):
                assert running.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"{address}/health/ready").close()
                    break
                except urllib.error.URLError:
                    time.sleep(0.5)
            yield address, log, sessions
        finally:
            running.terminate()


def infer(address, model, name, array):
    """The outputs by name."""
    tensor = {"name": name, "shape": array.shape, "datatype": "UINT8", "parameters": {"binary_data_size": array.nbytes}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{address}/models/{model}/infer", head + array.tobytes(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        outputs = json.loads(answer.read())["outputs"]
    return {one["name"]: np.array(one["data"], KINDS[one["datatype"]]).reshape(one["shape"]) for one in outputs}


def test_crops_of_many_clients_run_together_and_come_apart(server):
    address, log, sessions = server
    session = sessions[zoo.LANDMARKS]
    size = session.spec.crop.size
    crops = np.random.default_rng(0).integers(0, 255, (16, size, size, 3), np.uint8)
    wanted = session.run({"crops": crops})

    def check(start, stop):
        found = infer(address, session.spec.name, "crops", crops[start:stop])
        for name, values in zip(session.spec.tensors.outputs, wanted, strict=True):
            own = values[start:stop].reshape(found[name].shape)  # presence is (n, 1) here
            np.testing.assert_allclose(found[name], own, rtol=0, atol=1e-3)

    check(0, 16)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, [0, 3, 7, 15] * 8, [1, 4, 8, 16] * 8))
    together = [int(count) for count in re.findall(r"requests together: (\d+)", log.read_text())]
    assert sum(together) == 33 and max(together) > 1
    with pytest.raises(urllib.error.HTTPError) as refused:
        infer(address, session.spec.name, "crops", np.zeros((17, size, size, 3), np.uint8))
    assert b"batch-size must be <= 16" in refused.value.read()


def test_the_detector_takes_any_size(server, scene):
    address, _, sessions = server
    session = sessions[zoo.DETECTOR]
    for width, height in ((320, 240), (160, 320)):
        image = np.random.default_rng(1).integers(0, 255, (1, height, width, 3), np.uint8)
        found = infer(address, session.spec.name, "image", image)
        for name, values in zip(session.spec.tensors.outputs, session.run({"image": image}), strict=True):
            np.testing.assert_allclose(found[name].reshape(values.shape), values, rtol=0, atol=1e-3)


def test_clients_read_the_contract(server):
    address, _, sessions = server
    for session in sessions.values():
        with urllib.request.urlopen(f"{address}/models/{session.spec.name}/config") as answer:
            text = json.load(answer)["parameters"]["facelm"]["string_value"]
        assert ModelSpec.from_json(text) == session.spec
