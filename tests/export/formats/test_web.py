"""The site for the browser: what is written, and its modules in Node.js against the Python runtime."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

from facelm_export.formats import ort_web, prepare, web, write
from facelm_export.job import ExportJob
from facelm_sdk import Aligner, Landmarker, Tracker, read_image, zoo
from facelm_sdk.contract import LandmarkSpec
from facelm_sdk.errors import ChecksumError, InputError, MissingDependencyError, ModelFileError
from facelm_sdk.expression import eye_openness, mouth_openness
from facelm_sdk.files import write_files
from facelm_sdk.interop import json_schema
from facelm_sdk.pose import DISTANCE, HEAD_68, HeadPose, head_pose
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.transform import CropRecipe, CropTransform

ROOT = Path(__file__).parents[3]
PICTURES = ROOT / "examples" / "pictures"
SCRIPT = Path(__file__).with_name("web_node.mjs")


@pytest.fixture(scope="module")
def node():
    """Has a task of web_node.mjs done, all in one process, since opening the runtime takes longest."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(["node", str(SCRIPT)], **pipes) as process:

        def ask(kind, site, **task):
            process.stdin.write(json.dumps({"kind": kind, "site": str(site), **task}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


def raw(tmp_path, name, image, **more):
    """A picture as a file of RGBA bytes."""
    file = tmp_path / f"{name}.rgba"
    file.write_bytes(cv2.cvtColor(image, cv2.COLOR_BGR2RGBA).tobytes())
    return {"file": str(file), "width": image.shape[1], "height": image.shape[0], **more}


def at_640(image):
    """A picture in 640 by 480 pixels, black around it."""
    scale = min(640 / image.shape[1], 480 / image.shape[0])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, 0, 480 - small.shape[0], 0, 640 - small.shape[1], cv2.BORDER_CONSTANT)


def largest_distance(face, other):
    return float(np.linalg.norm(face.landmarks - np.array(other["landmarks"]), axis=1).max())


def test_faces_are_those_of_the_python_runtime(node, site, tmp_path):
    pictures = {path.stem: read_image(path) for path in sorted(PICTURES.glob("*.jpg"))}
    hopper, group = pictures["hopper"], pictures["group"]
    pictures |= {f"{name}_640": at_640(image) for name, image in (("hopper", hopper), ("group", group))}
    pictures |= {
        "upside down": np.ascontiguousarray(hopper[::-1, ::-1]),
        "fills the frame": np.ascontiguousarray(hopper[100:420, 120:400]),
        "large": cv2.resize(hopper, (1001, 1173), interpolation=cv2.INTER_CUBIC),
        "small": cv2.resize(pictures["collins"], (100, 100), interpolation=cv2.INTER_AREA),
        "no face": np.full((480, 640, 3), 90, np.uint8),
    }
    files = [raw(tmp_path, name, image) for name, image in pictures.items()]
    fixed = {"detSize": 400, "maxFaces": 2, "detThresh": 0.5, "minPresence": 0.2, "realign": False}
    auto = node("align", site, pictures=files)
    few = node("align", site, options=fixed, pictures=files[2:4])
    aligner = Aligner(variant="fp32")
    one_pass = Aligner(variant="fp32", det_size=400, max_faces=2, det_thresh=0.5, min_presence=0.2, realign=False)
    checked = [(name, image, found, aligner) for (name, image), found in zip(pictures.items(), auto, strict=True)]
    checked += [(name, pictures[name], found, one_pass) for name, found in zip([*pictures][2:4], few, strict=True)]
    for name, image, found, runtime in checked:
        faces = runtime(image)
        assert len(found) == len(faces), name
        for face, other in zip(faces, found, strict=True):
            eyes = np.linalg.norm(face.landmarks[36] - face.landmarks[45])
            assert largest_distance(face, other) <= min(0.5, 0.01 * max(eyes, 15)), name
            assert np.abs(face.kps - np.array(other["kps"])).max() < 0.05
            assert np.abs(face.bbox - np.array(other["bbox"])).max() < 0.1
            assert abs(face.score - other["score"]) < 1e-3 and abs(face.presence - other["presence"]) < 0.02
            assert np.abs(face.scores - np.array(other["scores"])).max() < 0.01
            assert max(abs(one - other["pose"][key]) for key, one in face.pose._asdict().items()) < 0.5
    height, width = group.shape[:2]
    told = {"source": "group.jpg", "width": width, "height": height, "model": zoo.LANDMARKS, "detector": zoo.DETECTOR}
    jsonschema.validate({**told, "faces": auto[list(pictures).index("group")]}, json_schema())


def test_faces_are_followed_through_a_video(node, site, tmp_path):
    """A shifting face is followed by its landmarks alone, is lost with the picture, and is found again."""
    hopper = at_640(read_image(PICTURES / "hopper.jpg"))
    frames = [np.roll(hopper, shift, axis=1) for shift in (0, 6, 12, 18)]
    frames += [np.zeros_like(hopper), hopper]
    files = [raw(tmp_path, f"frame{index}", frame) for index, frame in enumerate(frames)]
    found = node("track", site, frames=files)
    assert [len(faces) for faces in found] == [1, 1, 1, 1, 0, 1]
    tracker = Tracker(variant="fp32", redetect_every=None)
    for frame, faces in zip(frames[:4], found, strict=False):
        (face,) = tracker(frame)
        assert largest_distance(face, faces[0]) < 0.5
        assert abs(faces[0]["score"] - face.score) < 1e-3


def test_pose_and_openness_are_those_of_the_python_runtime(node, site):
    rng = np.random.default_rng(5)
    faces = []
    for _ in range(150):
        turn = HeadPose(*rng.uniform((-65, -35, -180), (65, 35, 180))).rotation
        seen = HEAD_68 @ turn.T + rng.normal(0, 0.1, (68, 3)) + [0, 0, rng.uniform(60, 200)]
        faces.append(seen[:, :2] / seen[:, 2:] * rng.uniform(200, 2000) + rng.uniform(0, 500, 2))
    faces.append(np.zeros((68, 2)))
    manifest = json.loads((site / "manifest.json").read_text())
    points = [face.tolist() for face in faces]
    found = node("pose", site, head=manifest["head"], ratios=manifest["openness"], points=points)
    assert found.pop() == [None, {"eyes": None, "mouth": None}]
    for face, (pose, openness) in zip(faces, found, strict=False):
        for one, other in zip(head_pose(face), pose.values(), strict=True):
            assert abs((one - other + 180) % 360 - 180) < 0.02
        eyes = eye_openness(face)
        assert np.allclose([eyes.left, eyes.right], list(openness["eyes"].values()))
        assert np.isclose(mouth_openness(face), openness["mouth"])
    assert manifest["head"]["distance"] == DISTANCE


def test_resampling_is_that_of_opencv(node, site, tmp_path):
    """To a grey level: by areas, bilinear, and crops, also those far smaller than the face and beyond the border."""
    picture = read_image(PICTURES / "hopper.jpg")[:411, :500]
    sizes = [(320, 263), (133, 97), (499, 410), (640, 480), (701, 500)]
    centres = np.array([[250, 200], [40, 380], [250, 200], [470, 30], [250, 200]])
    transforms = [
        CropTransform(scale * np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0]]), 64)
        for scale, a in ((1.3, 0.2), (0.7, -2.0), (0.3, 0.1), (0.15, 1.0), (4.0, 3.0))
    ]
    for transform, centre in zip(transforms, centres, strict=True):
        transform.matrix[:, 2] = 31.5 - transform.matrix[:, :2] @ centre
    matrices = [transform.matrix.ravel().tolist() for transform in transforms]
    found = node("pixels", site, picture=raw(tmp_path, "picture", picture), size=64, sizes=sizes, matrices=matrices)
    halves, thinned = cv2.resize(picture[:410], (250, 205)), cv2.resize(picture[:408], (125, 102))
    methods = [cv2.INTER_AREA if size < picture.shape[1::-1] else cv2.INTER_LINEAR for size in sizes]
    plain = [cv2.resize(picture, size, interpolation=method) for size, method in zip(sizes, methods, strict=True)]
    wanted = [halves, thinned, *plain]
    for image, pixels in zip(wanted, found["resized"], strict=True):
        assert np.abs(image.astype(int).ravel() - pixels).max() <= 1, image.shape
    for transform, pixels in zip(transforms, found["warped"], strict=True):
        difference = np.abs(transform.warp(picture).astype(int).ravel() - pixels)
        assert difference.max() <= 8 and difference.mean() < 0.5  # OpenCV may place pixels by 1/32


CROPS = (
    {"crop": CropRecipe(32, kind="box", side="mean", scale=1.2, shift=(0.05, -0.1), offset=(0.5, 0.5))},
    {"crop": CropRecipe(32, kind="box", box="landmarks", scale=1.25), "markup": "wflw98"},
    {"markup": "aflw19", "has_presence": True, "batch": 2},
)


def test_crops_are_cut_as_the_contract_says(node, site, tmp_path, landmark_model, monkeypatch):
    """Of tiny models, which say how bright the crop's left half is; a batch may be fixed."""
    monkeypatch.setattr(ort_web, "files", lambda data: {})
    image = read_image(PICTURES / "hopper.jpg")
    kps = Aligner()(image)[0].kps + np.array([[[0, 0]], [[20, 10]], [[-15, 30]]])
    picture = raw(tmp_path, "one", image, kps=kps.tolist())
    paths = [landmark_model(**values) for values in CROPS]
    for index, (path, values) in enumerate(zip(paths, CROPS, strict=True)):
        own = tmp_path / f"site{index}"
        job = ExportJob(path.read_bytes(), OrtSession(path).spec, own, values.get("batch"), 16, lambda step: None)
        write_files(web.files(job)[0])
        (own / "ort").symlink_to(site / "ort")
        (found,) = node("align", own, pictures=[picture])
        faces = Aligner(Landmarker(path, max_batch=values.get("batch", 64)), None)(image, kps=kps)
        for face, other in zip(faces, found, strict=True):
            assert largest_distance(face, other) < 0.1
            assert other["score"] is None and other["markup"] == face.markup
            assert (other["pose"] is None) == (face.to_dict()["pose"] is None)
            assert (other["presence"] is None) == (face.presence is None)


def test_the_code_for_node_in_the_docs_runs(node, site, tmp_path):
    text = (ROOT / "docs" / "browser.md").read_text().partition("## Node.js")[2].split("```")[1].removeprefix("js\n")
    (tmp_path / "site").symlink_to(site)
    photo = read_image(PICTURES / "hopper.jpg")
    (face,) = node("run", tmp_path, text=text, picture=raw(tmp_path, "one", photo))
    assert largest_distance(Aligner(variant="fp32")(photo)[0], face) <= 0.5


def test_what_cannot_be_taken_is_told(node, site, tmp_path):
    picture = raw(tmp_path, "one", np.zeros((60, 80, 3), np.uint8))
    reasons = node("refused", site, picture=picture)
    words = ("no option detsize", "64 to 4096", "auto, webgpu or wasm", "manifest.json", "RGBA bytes")
    for reason, expected in zip(reasons, (*words, "a picture is", "five points", "no crop"), strict=True):
        assert expected in reason


def test_a_site_has_all_it_needs_and_says_what_it_is(site):
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    wanted = {*web.PAGE, "sw.js", "manifest.json", "package.json", "models/detector.onnx", "models/landmarks.onnx"}
    assert wanted <= names and {"ort/LICENSE", "ort/ThirdPartyNotices.txt", "ort/ort.wasm.min.mjs"} <= names
    manifest = json.loads((site / "manifest.json").read_text())
    spec = LandmarkSpec.from_json(json.dumps(manifest["models"]["landmarks"]["spec"]))
    assert spec == OrtSession(zoo.resolve(zoo.LANDMARKS).path).spec
    assert (site / "models/detector.onnx").read_bytes() == zoo.resolve(zoo.DETECTOR).path.read_bytes()
    cached = re.findall(r'"([\w.]+\.\w+)"', (site / "sw.js").read_text().partition("PAGE =")[2].partition(";")[0])
    assert set(cached) == {name for name in web.PAGE if not name.endswith(".d.ts")}
    assert "{{" not in (site / "sw.js").read_text()
    for name in web.PAGE:  # nothing but what is beside it
        assert not re.findall(r"https?://(?!www\.w3\.org)", (site / name).read_text()), name


def test_the_declaration_names_what_there_is(site):
    declared, module = ((site / name).read_text() for name in ("facelm.d.ts", "facelm.js"))
    assert re.findall(r"export class (\w+)", declared) == re.findall(r"export class (\w+)", module)
    options = re.search(r"interface Options \{(.*?)\n\}", declared, re.S)[1]
    known = re.search(r"const known = \{(.*?)\n  \}", module, re.S)[1]
    assert re.findall(r"^  (\w+)\?:", options, re.M) == re.findall(r"^    (\w+):", known, re.M)
    face = re.search(r"interface Face \{(.*?)\n\}", declared, re.S)[1]
    assert set(re.findall(r"^  (\w+):", face, re.M)) == set(json_schema()["$defs"]["face"]["required"])


def test_a_site_comes_with_its_report(small, archive, tmp_path):
    of = small("lotr_m_plus")
    job = ExportJob(of.path.read_bytes(), of.spec, tmp_path / "site", None, 16, lambda step: None)
    done = write(job, {**of.report, "format": "web"}, "web")
    facts = json.loads((done.path / "report.json").read_text())
    assert facts["web"]["onnxruntime-web"] == ort_web.VERSION
    assert facts["files"]["models/landmarks.onnx"]["bytes"] == len(job.data)
    assert "site for the browser" in (done.path / "report.md").read_text()
    assert facts["web"]["version"] in (done.path / "sw.js").read_text()
    assert prepare("web", done.path, "again") == done.path  # over an earlier one


def test_a_folder_with_another_page_is_refused(tmp_path, archive):
    (tmp_path / "index.html").write_text("my page")
    with pytest.raises(InputError, match="not of an export"):
        prepare("web", tmp_path, "name")


def test_a_detector_is_no_site(detector_model):
    with pytest.raises(InputError, match="a site is of a landmark model"):
        web.check(OrtSession(detector_model()).spec)


def test_an_archive_that_is_named_must_be_the_pinned_one(tmp_path, monkeypatch):
    monkeypatch.setenv(ort_web.VARIABLE, str(tmp_path / "nowhere.tgz"))
    with pytest.raises(ModelFileError, match=r"FACELM_ORT_WEB=.* cannot be read"):
        ort_web.archive()
    (tmp_path / "other.tgz").write_bytes(b"other")
    monkeypatch.setenv(ort_web.VARIABLE, str(tmp_path / "other.tgz"))
    with pytest.raises(ChecksumError, match=f"not onnxruntime-web {ort_web.VERSION}"):
        ort_web.archive()


def test_without_npm_the_line_to_type_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv(ort_web.VARIABLE, raising=False)
    monkeypatch.setenv("FACELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=f"type: npm pack onnxruntime-web@{ort_web.VERSION}"):
        ort_web.archive()
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho npm error network is down >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(MissingDependencyError, match=r"network is down.*FACELM_ORT_WEB="):
        ort_web.archive()
    assert not (tmp_path / "cache").exists()


def test_what_npm_fetched_is_checked_and_kept(tmp_path, monkeypatch, archive):
    monkeypatch.delenv(ort_web.VARIABLE, raising=False)
    monkeypatch.setenv("FACELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ort_web, "_packed", lambda: archive + b"!")
    with pytest.raises(ChecksumError):
        ort_web.archive()
    monkeypatch.setattr(ort_web, "_packed", lambda: archive)
    assert ort_web.archive() == archive
    monkeypatch.setattr(ort_web, "_packed", pytest.fail)
    assert ort_web.archive() == archive
