"""The page in headless Chromium: photos, the camera, a video file, offline, and who is asked for anything."""

from __future__ import annotations

import base64
import functools
import json
import shutil
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from facelm_sdk import Aligner, read_image
from facelm_sdk.video.writer import VideoWriter

PICTURES = Path(__file__).parents[3] / "examples" / "pictures"
FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "use-fake-device-for-media-stream", "use-fake-ui-for-media-stream"),
)
PATIENCE = 120  # seconds; a busy machine takes long to compile the runtime


class Server:
    """The site on localhost; ``headers`` are added to each answer."""

    def __init__(self, folder: Path, headers: dict[str, str]) -> None:
        class Handler(SimpleHTTPRequestHandler):
            def end_headers(self) -> None:
                for name, value in headers.items():
                    self.send_header(name, value)
                super().end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.address = f"http://localhost:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def clip(frames=24):
    """A portrait that moves a little, 640 by 480."""
    hopper = cv2.resize(read_image(PICTURES / "hopper.jpg")[:384], (640, 480), interpolation=cv2.INTER_CUBIC)
    return [np.roll(hopper, index, axis=1) for index in (*range(frames // 2), *range(frames // 2, 0, -1))]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, whose camera shows the clip, and which writes down all that it asks the network for."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (apt-get install chromium chromium-driver)")
    folder = tmp_path_factory.mktemp("browser")
    camera, log = folder / "camera.mjpeg", folder / "net.json"
    camera.write_bytes(b"".join(cv2.imencode(".jpg", frame)[1].tobytes() for frame in clip()))
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    paths = {"use-file-for-fake-video-capture": camera, "log-net-log": log, "user-data-dir": folder / "profile"}
    for flag in (*FLAGS, "window-size=760,980", *(f"{name}={path}" for name, path in paths.items())):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    page.set_script_timeout(PATIENCE)
    page.net_log = log
    yield page
    page.quit()


def wait(browser, script):
    """What a script gives, once it gives something."""
    end = time.monotonic() + PATIENCE
    while not (value := browser.execute_script(f"return {script}")):
        status = browser.execute_script("return document.getElementById('status')?.textContent")
        assert time.monotonic() < end and "cannot" not in (status or ""), f"{script}: {status}"
        time.sleep(0.1)
    return value


def open_page(browser, address):
    browser.get(address)
    return wait(browser, "document.documentElement.dataset.ready")


def choose(browser, what, path):
    browser.find_element("id", what).send_keys(str(path))


def faces_of_photo(browser, path):
    choose(browser, "photos", path)
    figure = f"[...document.querySelectorAll('figure[data-faces]')].find(one => one.innerText.includes('{path.name}'))"
    return json.loads(wait(browser, f"{figure}?.dataset.faces"))


def live_faces(browser, count=1):
    """The faces of the video that is shown, once its rate is."""
    wait(browser, "document.querySelector('#live figcaption').innerText.includes('frames a second')")
    script = "document.getElementById('live').dataset.faces"
    return json.loads(wait(browser, f"JSON.parse({script}).length == {count} && {script}"))


def check_same(faces, found):
    assert len(faces) == len(found)
    for face, other in zip(faces, found, strict=True):
        assert np.linalg.norm(face.landmarks - np.array(other["landmarks"]), axis=1).max() <= 0.5
        assert max(abs(angle - other["pose"][name]) for name, angle in face.pose._asdict().items()) < 0.5
        assert abs(face.presence - other["presence"]) < 0.02


FRAME = """
const done = arguments[arguments.length - 1];
const player = document.getElementById("player");
const canvas = new OffscreenCanvas(player.videoWidth, player.videoHeight);
const context = canvas.getContext("2d");
context.drawImage(player, 0, 0);
const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
import("./page.js").then(async ({ aligner }) => {
  const faces = await aligner.align(pixels);
  const file = new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer());
  done([btoa(Array.from(file, (byte) => String.fromCharCode(byte)).join("")), JSON.stringify(faces)]);
});
"""


def test_the_page(site, browser, tmp_path):
    """In one go, since the first load of the runtime takes longest."""
    server = Server(site, {})
    aligner = Aligner(variant="fp32")
    assert open_page(browser, server.address) == "wasm"
    assert "leaves this machine" in browser.find_element("tag name", "body").text
    photo = PICTURES / "group.jpg"
    check_same(aligner(photo), faces_of_photo(browser, photo))

    browser.find_element("id", "camera").click()
    (followed,) = live_faces(browser)
    picture, found = browser.execute_async_script(FRAME)
    faces = aligner(base64.b64decode(picture))
    check_same(faces, json.loads(found))
    eyes = np.linalg.norm(faces[0].landmarks[36] - faces[0].landmarks[45])
    off = np.linalg.norm(faces[0].landmarks - np.array(followed["landmarks"]), axis=1).mean()
    assert off < 24 + 0.05 * eyes  # of another frame
    browser.find_element("id", "stop").click()

    video = tmp_path / "clip.mp4"
    with VideoWriter(video, 24) as writer:
        for frame in clip() * 3:
            writer.write(frame)
    if b"avc1" in video.read_bytes():  # H.264: PyAV is installed
        choose(browser, "video-file", video)
        assert len(live_faces(browser)) == 1

    server.stop()
    browser.refresh()
    assert wait(browser, "document.documentElement.dataset.ready") == "wasm"
    photo = PICTURES / "hopper.jpg"
    check_same(aligner(photo), faces_of_photo(browser, photo))
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors
    browser.get("about:blank")
    check_requests(browser.net_log, server.address)


def check_requests(log, address):
    """Whatever the browser asked for on the page's behalf was asked of the page's own server."""
    text = log.read_text().rstrip().rstrip(",")
    events = json.loads(text if text.endswith("]}") else text + "]}")["events"]
    asked = [event["params"] for event in events if "url" in event.get("params", {})]
    own = [one["url"] for one in asked if one.get("initiator", "").rstrip("/") == address.rstrip("/")]
    assert any(url.endswith("landmarks.onnx") for url in own)
    assert {urlsplit(url).netloc for url in own if not url.startswith(("blob:", "data:"))} == {urlsplit(address).netloc}


THREADS = """
const done = arguments[arguments.length - 1];
import("./facelm.js").then(async ({ Aligner }) => {
  const aligner = await Aligner.load(undefined, { threads: 2 });
  const photo = await createImageBitmap(await (await fetch(arguments[0])).blob());
  done([crossOriginIsolated, aligner.threads, JSON.stringify(await aligner.align(photo))]);
});
"""


def test_threads_where_the_server_isolates_the_page(site, browser):
    server = Server(site, {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"})
    browser.get(f"{server.address}package.json")  # not the page, which would open the models itself
    photo = PICTURES / "collins.jpg"
    data = f"data:image/jpeg;base64,{base64.b64encode(photo.read_bytes()).decode()}"
    isolated, threads, found = browser.execute_async_script(THREADS, data)
    assert isolated and threads == 2
    check_same(Aligner(variant="fp32")(photo), json.loads(found))
    server.stop()
