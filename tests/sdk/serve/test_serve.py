"""Faces over HTTP: real servers on real sockets."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from facelm_sdk import Aligner, InputError, cli
from facelm_sdk.images.picture import Picture
from facelm_sdk.interop import json_schema, record

pytest.importorskip("fastapi", reason="needs facelm-sdk[serve]")
pytest.importorskip("uvicorn", reason="needs facelm-sdk[serve]")
pytest.importorskip("prometheus_client", reason="needs facelm-sdk[serve]")
httpx = pytest.importorskip("httpx")

import uvicorn  # noqa: E402
from fastapi import Request  # noqa: E402

from facelm_sdk.serve import Limits, create_app  # noqa: E402
from facelm_sdk.serve.body import upload  # noqa: E402
from facelm_sdk.serve.problems import Refused  # noqa: E402
from tests.fuzz.mutate import damaged  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
JPEG = {"Content-Type": "image/jpeg"}


class HeldAligner(Aligner):
    """Aligns while ``gate`` is open, and counts the pictures it began."""

    def __init__(self, *args, **options):
        self.gate = threading.Event()
        self.gate.set()
        self.calls = 0
        super().__init__(*args, **options)

    def __call__(self, image, **options):
        self.calls += 1
        assert self.gate.wait(20)
        return super().__call__(image, **options)


@pytest.fixture(scope="module")
def models(landmark_model, detector_model):
    return str(landmark_model()), str(detector_model())


@pytest.fixture(scope="module")
def files(scene):
    """Pictures of one to three faces."""
    boxes = [(50, 50, 250, 260), (400, 100, 600, 300), (100, 280, 300, 470)]
    return [cv2.imencode(".png", scene(640, 480, *boxes[: count + 1]))[1].tobytes() for count in range(3)]


@contextmanager
def served(aligner, **limits):
    """A client of a server in a thread."""
    config = uvicorn.Config(create_app(aligner, Limits(**limits)), port=0, log_config=None, ws="none", lifespan="on")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=20) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(models):
    with served(Aligner(*models, max_pixels=400_000), workers=2, max_bytes=200_000) as client:
        yield client


def post(client, data, kind="image/png", **options):
    return client.post("/v1/faces", content=data, headers={"Content-Type": kind}, **options)


def problem(answer):
    """The kind and message of an error, which is what the description says of that status."""
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error", "message"}
    return answer.status_code, answer.json()["error"], answer.json()["message"]


def metric(client, name):
    lines = client.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), None)


def until(true, seconds=10):
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


@contextmanager
def connected(client, *parts):
    """A bare connection on which ``parts`` of a request were sent."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        yield connection


def head(*lines):
    return "\r\n".join(["POST /v1/faces HTTP/1.1", "Host: here", *lines, "", ""]).encode()


def status(connection):
    return int(connection.recv(65536).split()[1])


def test_a_picture_and_a_form_give_what_align_gives(client, models, files):
    picture = Picture(files[1])
    aligner = Aligner(*models)
    wanted = json.loads(json.dumps(record("", picture, aligner(picture), aligner)))
    assert len(wanted["faces"]) == 2
    assert post(client, files[1]).json() == wanted
    assert post(client, files[1], kind="application/octet-stream").json() == wanted
    form = client.post("/v1/faces", files={"file": ("b\u00e4r.png", files[1], "image/png")}, data={"note": "ignored"})
    assert form.json() == wanted | {"source": "b\u00e4r.png"}
    named = client.post("/v1/faces?source=a%2Fb.png", files={"any": ("other.png", files[1])})
    assert named.json() == wanted | {"source": "a/b.png"}
    pytest.importorskip("jsonschema").Draft202012Validator(json_schema()).validate(form.json())


def test_answers_are_not_mixed_up(client, files):
    order = [0, 1, 2] * 10
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda index: post(client, files[index]), order))
    assert [len(answer.json()["faces"]) for answer in answers] == [index + 1 for index in order]


FORM = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("data", "kind", "wanted"),
    [
        (b"", "image/png", (422, "not_a_picture", "0 bytes: the file is empty")),
        (b"no", "image/png", (422, "not_a_picture", "2 bytes: not a picture")),
        (b"no", "text/plain", (415, "unsupported_media_type", "Content-Type is text/plain; send the picture as it is")),
        (b"no", "", (415, "unsupported_media_type", "there is no Content-Type; send")),
        (b"no", "multipart/form-data", (400, "bad_request", "the form cannot be read (No boundary given)")),
        (b"no", FORM, (400, "bad_request", "the form cannot be read (")),
        (b"--x--\r\n", FORM, (400, "bad_request", "the form has 0 files; send")),
        (b"--x\r\n\r\nno\r\n--x--\r\n", FORM, (400, "bad_request", "the form cannot be read (Field name not found")),
    ],
)
def test_what_is_no_picture_is_refused(client, data, kind, wanted):
    found = problem(post(client, data, kind))
    assert found[:2] == wanted[:2] and found[2].startswith(wanted[2])


def test_forms_have_one_whole_file(client, files):
    two = client.post("/v1/faces", files={"a": ("a", files[0]), "b": ("b", files[0])})
    assert problem(two)[:2] == (400, "bad_request") and "2 files" in two.text
    whole = client.build_request("POST", "/v1/faces", files={"a": ("a", files[0])})
    cut = post(client, whole.read()[:-40], whole.headers["content-type"])
    assert problem(cut)[:2] == (400, "bad_request")


def test_damaged_forms_are_refused_or_read():
    request = Request({"type": "http", "headers": [(b"content-type", FORM.encode())]})
    part = 'Content-Disposition: form-data; name="file"; filename="a"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA'
    whole = f"--x\r\n{part}\r\n--x\r\n{part}\r\n--x--\r\n".encode()
    rng = random.Random(0)
    refused = 0
    for _ in range(500):
        try:
            upload(request, damaged(rng, whole, (b"\r\n--x", b"--", b"filename", b"name=")))
        except Refused as error:
            assert error.status == 400
            refused += 1
    assert refused > 300


def test_damaged_and_large_pictures_are_refused(client, scene):
    cut = cv2.imencode(".jpg", scene(640, 480, (50, 50, 250, 260)))[1].tobytes()[:-20]
    assert problem(post(client, cut)) == (422, "not_a_picture", f"{len(cut)} bytes: the JPEG is truncated")
    large = cv2.imencode(".png", np.zeros((700, 700, 3), np.uint8))[1].tobytes()
    assert "700 x 700 pixels are more than 400,000" in problem(post(client, large))[2]
    packed = client.post("/v1/faces", content=large, headers=JPEG | {"Content-Encoding": "gzip"})
    assert problem(packed)[:2] == (415, "unsupported_media_type")


def test_other_addresses_and_methods_are_problems_too(client):
    assert problem(client.get("/")) == (404, "not_found", "GET /: Not Found; /openapi.json says what there is")
    wrong = client.get("/v1/faces")
    assert problem(wrong)[:2] == (405, "method_not_allowed") and wrong.headers["allow"] == "POST"
    assert client.get("/docs").status_code == 404  # it would load scripts from elsewhere


def test_a_body_too_large_is_refused_before_it_is_read(client):
    with connected(client, head("Content-Type: image/png", "Content-Length: 9999999999")) as connection:
        assert status(connection) == 413
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with connected(client, head("Content-Type: image/png", "Transfer-Encoding: chunked"), *[chunk] * 4) as connection:
        assert status(connection) == 413  # and the last chunk never comes
    assert problem(post(client, bytes(200_001)))[:2] == (413, "too_large")
    until(lambda: metric(client, "facelm_places_taken") == 0)


def test_health_and_metrics(client, files):
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    names = ('facelm_requests_total{status="200"}', "facelm_faces_total", "facelm_align_seconds_count")
    before = [metric(client, name) or 0 for name in names]
    assert post(client, files[2]).status_code == 200
    assert [metric(client, name) - old for name, old in zip(names, before, strict=True)] == [1, 3, 1]
    assert metric(client, "facelm_workers") == 2 and metric(client, "facelm_places") == 34
    assert metric(client, "process_resident_memory_bytes") > 1e7


def test_the_description_says_what_is_answered(client, files):
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    description = client.get("/openapi.json").json()
    answers = description["paths"]["/v1/faces"]["post"]["responses"]
    assert set(answers) == {"200", "400", "408", "413", "415", "422", "500", "503"}

    def check(answer):
        schema = answers[str(answer.status_code)]["content"]["application/json"]["schema"]
        validator(schema | {"components": description["components"]}).validate(answer.json())

    check(post(client, files[1]))
    check(post(client, b""))
    check(post(client, b"", "text/plain"))
    wrong = post(client, files[1]).json()
    wrong["faces"][0]["landmarks"].pop()
    schema = {"$ref": "#/components/schemas/Faces", "components": description["components"]}
    assert not validator(schema).is_valid(wrong)


def test_beyond_its_places_it_refuses_at_once(models, files):
    aligner = HeldAligner(*models)
    with served(aligner, workers=1, queue=1) as client, ThreadPoolExecutor(2) as pool:
        aligner.gate.clear()
        held = [pool.submit(post, client, files[0]) for _ in range(2)]
        until(lambda: metric(client, "facelm_places_taken") == 2)
        until(lambda: metric(client, "facelm_workers_busy") == 1)
        with connected(client, head("Content-Type: image/png", "Content-Length: 1000")) as connection:
            assert status(connection) == 503  # without a byte of the body
        refused = post(client, files[0])
        assert problem(refused) == (503, "overloaded", "all 2 places are taken; ask again later")
        assert refused.headers["retry-after"] == "1"
        assert client.get("/readyz").status_code == 200
        aligner.gate.set()
        assert [one.result().status_code for one in held] == [200, 200]
        until(lambda: metric(client, "facelm_places_taken") == 0)
        until(lambda: metric(client, 'facelm_requests_total{status="503"}') == 2)
        assert post(client, files[0]).status_code == 200


def test_a_request_has_its_time(models, files):
    aligner = HeldAligner(*models)
    with served(aligner, workers=1, queue=2, timeout=0.3) as client, ThreadPoolExecutor(2) as pool:
        with connected(client, head("Content-Type: image/png", "Content-Length: 9"), b"half") as connection:
            assert status(connection) == 408
        begun = aligner.calls
        aligner.gate.clear()
        late = [pool.submit(post, client, files[0]) for _ in range(2)]
        for one in late:
            assert problem(one.result()) == (503, "timeout", "there was no answer within 0.3 seconds")
            assert one.result().headers["retry-after"] == "1"
        until(lambda: metric(client, "facelm_places_taken") == 1)  # of the thread that nobody waits for
        aligner.gate.set()
        until(lambda: metric(client, "facelm_places_taken") == 0)
        assert aligner.calls == begun + 1  # the one that waited was never begun


def test_nothing_is_done_for_who_has_gone(models, files):
    aligner = HeldAligner(*models)
    with served(aligner, workers=1, queue=2) as client, ThreadPoolExecutor(1) as pool:
        begun = aligner.calls
        aligner.gate.clear()
        held = pool.submit(post, client, files[0])
        until(lambda: metric(client, "facelm_workers_busy") == 1)
        with connected(client, head("Content-Type: image/png", f"Content-Length: {len(files[0])}"), files[0]):
            until(lambda: metric(client, "facelm_places_taken") == 2)
        until(lambda: metric(client, "facelm_places_taken") == 1)
        with connected(client, head("Content-Type: image/png", "Content-Length: 100"), b"half"):
            until(lambda: metric(client, "facelm_places_taken") == 2)
        until(lambda: metric(client, "facelm_places_taken") == 1)
        aligner.gate.set()
        assert held.result().status_code == 200
        assert aligner.calls == begun + 1
        assert metric(client, 'facelm_requests_total{status="499"}') == 2


def test_a_failure_is_told_and_forgotten(models, files, caplog):
    aligner = Aligner(*models)
    with served(aligner, workers=1, queue=0) as client:
        run, aligner.landmarker.session.run = aligner.landmarker.session.run, None
        assert problem(post(client, files[0]))[:2] == (500, "internal")
        aligner.landmarker.session.run = run
        assert post(client, files[0]).status_code == 200
        assert metric(client, 'facelm_requests_total{status="500"}') == 1
    assert "TypeError" in caplog.text


@contextmanager
def process(models, *options):
    """``facelm serve`` as a process of its own, and a client of it."""
    command = [sys.executable, "-m", "facelm_sdk", "serve", "--port", "0"]
    command += ["--model", models[0], "--detector", models[1], *map(str, options)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        try:
            line = running.stderr.readline()
            assert "open to this machine alone" in line, line + running.stderr.read()
            with httpx.Client(base_url=line.split()[3].removesuffix("/v1/faces;"), timeout=20) as client:
                yield running, client
        finally:
            running.kill()


@pytest.mark.skipif(os.name == "nt", reason="SIGTERM ends a process of Windows at once")
def test_sigterm_ends_it_without_a_lost_request(models, files):
    half = len(files[0]) // 2
    lines = head("Content-Type: image/png", f"Content-Length: {len(files[0])}")
    with process(models) as (running, client), connected(client, lines, files[0][:half]) as connection:
        assert client.get("/readyz").status_code == 200
        until(lambda: metric(client, "facelm_places_taken") == 1)
        running.send_signal(signal.SIGTERM)
        until(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json() == {"status": "stopping"}
        assert client.get("/healthz").status_code == 200
        refused = post(client, files[0])
        assert problem(refused)[:2] == (503, "stopping") and refused.headers["retry-after"] == "1"
        connection.sendall(files[0][half:])
        assert status(connection) == 200
        assert running.wait(20) == 0
        assert running.stderr.read().endswith("facelm serve: stopped\n")


@pytest.mark.skipif(os.name == "nt", reason="as above")
def test_a_second_signal_ends_it_at_once(models):
    lines = head("Content-Type: image/png", "Content-Length: 9")
    with process(models, "--drain", 60) as (running, client), connected(client, lines):
        until(lambda: metric(client, "facelm_places_taken") == 1)
        running.send_signal(signal.SIGTERM)
        until(lambda: client.get("/readyz").status_code == 503)
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process of Linux")
def test_what_is_beyond_its_places_costs_no_memory(models):
    """Three requests hold all places; 60 others send 2 MB each, and then as much again."""
    lines = head("Content-Type: image/png", "Content-Length: 2000000")
    with process(models, "--workers", 1, "--queue", 2) as (_, client), ThreadPoolExecutor(20) as pool:
        with connected(client, lines), connected(client, lines), connected(client, lines):
            until(lambda: metric(client, "facelm_places_taken") == 3)

            def flood():
                answers = pool.map(lambda _: post(client, bytes(2_000_000)).status_code, range(60))
                assert set(answers) == {503}
                return metric(client, "process_resident_memory_bytes")

            first, second = flood(), flood()
            assert second - first < 8e6
        until(lambda: metric(client, "facelm_places_taken") == 0)
        assert client.get("/readyz").status_code == 200


def test_the_command_says_what_is_missing_and_what_is_wrong(models):
    code = "import sys; sys.modules['fastapi'] = None; from facelm_sdk.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "serve"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and 'type: pip install "facelm-sdk[serve]"' in done.stderr
    for words, told in (
        (["--port", "70000"], "--port is a number from 0 to 65535"),
        (["--drain", "-1"], "--drain is a number of seconds"),
        (["--queue", "-1"], "queue is a whole number from 0 to 65536, not -1"),
        (["--max-bytes", "0"], "max_bytes is a whole number from 1"),
        (["--timeout", "0"], "timeout is a number of seconds"),
        (["--workers", "0"], "workers is a whole number"),
        (["--max-pixels", "0"], "max_pixels is a whole number"),
    ):
        result = CliRunner().invoke(cli.app, ["serve", *words, "--model", models[0], "--detector", models[1]])
        assert isinstance(result.exception, InputError) and told in str(result.exception)


def test_the_command_is_there_without_its_packages():
    code = "import sys, facelm_sdk.cli; print(*{'fastapi', 'uvicorn', 'prometheus_client'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
