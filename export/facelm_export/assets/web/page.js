import { Aligner, Tracker } from "./facelm.js";

const $ = (id) => document.getElementById(id);
const player = $("player");
const results = [];
export let aligner;
let playing = null; // the video that is shown: an object of its own for each, so that an older loop ends

function say(text) {
  $("status").textContent = text;
}

async function start() {
  await keepForOffline();
  aligner = await Aligner.load();
  const { detector, landmarks } = aligner.manifest.models;
  const threads = aligner.threads === 1 ? "1 thread" : `${aligner.threads} threads`;
  const where = aligner.device === "webgpu" ? "WebGPU" : `WebAssembly, ${threads}`;
  say(`Ready: ${landmarks.spec.name} in ${landmarks.spec.precision}, ${where}.`);
  $("terms").textContent = `${detector.spec.name}: ${detector.spec.licence}. ${landmarks.spec.name}: ${landmarks.spec.licence}.`;
  for (const id of ["photos", "video-file", "camera"]) $(id).disabled = false;
  document.documentElement.dataset.ready = aligner.device;
}

/** Wait for the service worker before the models are loaded, so that they pass through its cache, once. */
async function keepForOffline() {
  if (!("serviceWorker" in navigator)) return; // a page that is not https, nor localhost
  try {
    const controlled = new Promise((done) => navigator.serviceWorker.addEventListener("controllerchange", done, { once: true }));
    const { active } = await navigator.serviceWorker.register("sw.js");
    if (active === null) await Promise.race([controlled, new Promise((done) => setTimeout(done, 20000))]);
  } catch (error) {
    console.warn("the page will not work offline:", error);
  }
}

async function showPhotos(files) {
  for (const file of files) {
    say(`${file.name} ...`);
    const figure = document.createElement("figure");
    const [canvas, caption] = [document.createElement("canvas"), document.createElement("figcaption")];
    try {
      const photo = await createImageBitmap(file);
      const began = performance.now();
      const faces = await aligner.align(photo);
      const took = performance.now() - began;
      draw(canvas, photo, faces);
      describe(caption, faces, `${file.name}, ${photo.width} x ${photo.height}: ${counted(faces)} in ${took.toFixed(0)} ms`);
      const { detector, landmarks } = aligner.manifest.models;
      const { width, height } = photo;
      results.push({ source: file.name, width, height, model: landmarks.spec.name, detector: detector.spec.name, faces });
      $("save").hidden = false;
      figure.append(canvas, caption);
      figure.dataset.faces = JSON.stringify(faces);
      say(`${file.name}: ${counted(faces)}.`);
    } catch (error) {
      caption.textContent = `${file.name} cannot be read as a picture (${error.message})`;
      figure.append(caption);
      say(caption.textContent);
    }
    $("results").prepend(figure);
  }
}

async function showVideo(source) {
  stop();
  const mine = (playing = {});
  if (source instanceof MediaStream) player.srcObject = source;
  else player.src = URL.createObjectURL(source);
  $("stop").hidden = false;
  $("live").hidden = false;
  try {
    await player.play();
    const tracker = new Tracker(aligner);
    const [canvas, caption] = $("live").children;
    let [drawn, since, rate] = [0, performance.now(), ""];
    while (playing === mine && !player.ended) {
      const frame = await createImageBitmap(player);
      const faces = await tracker.track(frame);
      if (playing !== mine) break;
      draw(canvas, frame, faces);
      frame.close();
      drawn += 1;
      if (performance.now() - since > 1000) {
        rate = `${((1000 * drawn) / (performance.now() - since)).toFixed(1)} frames a second, `;
        [drawn, since] = [0, performance.now()];
      }
      describe(caption, faces, `${rate}${counted(faces)}`);
      $("live").dataset.faces = JSON.stringify(faces);
      await nextFrame();
    }
  } catch (error) {
    if (playing === mine) say(`The video cannot be played (${error.message}).`);
  }
  if (playing === mine) stop();
}

/** Wait for a new frame of the video, or its end. */
function nextFrame() {
  return new Promise((done) => {
    player.addEventListener("ended", done, { once: true });
    if (player.requestVideoFrameCallback) player.requestVideoFrameCallback(done);
    else requestAnimationFrame(done);
    setTimeout(done, 500); // a camera that is paused, a tab in the background
  });
}

function stop() {
  playing = null;
  player.pause();
  for (const track of player.srcObject?.getTracks() ?? []) track.stop();
  if (player.src) URL.revokeObjectURL(player.src);
  player.srcObject = null;
  player.removeAttribute("src");
  $("stop").hidden = true;
}

/** Draw a picture with the faces' points, red where they are likely wrong, and the lines between them. */
function draw(canvas, picture, faces) {
  [canvas.width, canvas.height] = [picture.width, picture.height];
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  for (const [index, { bbox, landmarks, scores }] of faces.entries()) {
    const size = Math.max(bbox[2] - bbox[0], bbox[3] - bbox[1]);
    if (faces.length > 1) {
      context.font = `${Math.max(14, canvas.width / 45)}px system-ui, sans-serif`;
      context.fillStyle = "white";
      context.fillText(index + 1, bbox[2], bbox[1]);
    }
    const radius = Math.max(1, size / 110);
    context.lineWidth = Math.max(1, size / 250);
    context.strokeStyle = "rgba(255, 255, 255, 0.7)";
    for (const line of aligner.manifest.points.polylines) {
      context.beginPath();
      for (const index of line) context.lineTo(landmarks[index][0] + 0.5, landmarks[index][1] + 0.5);
      context.stroke();
    }
    landmarks.forEach(([x, y], index) => {
      context.fillStyle = `hsl(${120 * (scores?.[index] ?? 1)} 90% 50%)`;
      context.beginPath();
      context.arc(x + 0.5, y + 0.5, radius, 0, 2 * Math.PI);
      context.fill();
    });
  }
}

/** Write a line, and a row a face: pose and confidence. */
function describe(caption, faces, line) {
  const degrees = (value) => (value === undefined ? "" : `${value.toFixed(1)}°`);
  const part = (value) => (value === null || value === undefined ? "" : value.toFixed(2));
  const mean = (values) => (values === null ? null : values.reduce((sum, value) => sum + value, 0) / values.length);
  const head = ["face", "yaw", "pitch", "roll", "is a face", "points right", "eyes open", "mouth open"];
  const rows = faces.map(({ pose, presence, scores, eye_openness: eyes, mouth_openness: mouth }, index) => [
    ...[index + 1, degrees(pose?.yaw), degrees(pose?.pitch), degrees(pose?.roll), part(presence), part(mean(scores))],
    ...[eyes === null ? "" : `${part(eyes.left)} ${part(eyes.right)}`, part(mouth)],
  ]);
  const row = (cells, tag) => {
    const line = document.createElement("tr");
    for (const cell of cells) line.appendChild(document.createElement(tag)).textContent = cell;
    return line;
  };
  const table = document.createElement("table");
  if (rows.length > 0) table.append(row(head, "th"), ...rows.map((cells) => row(cells, "td")));
  caption.replaceChildren(line, table);
}

function counted(faces) {
  return faces.length === 1 ? "1 face" : `${faces.length} faces`;
}

function take(files) {
  const [first] = files;
  if (first?.type.startsWith("video/")) showVideo(first);
  else showPhotos(files);
}

$("photos").addEventListener("change", (event) => showPhotos([...event.target.files]));
$("video-file").addEventListener("change", (event) => take([...event.target.files]));
$("stop").addEventListener("click", stop);
$("camera").addEventListener("click", async () => {
  try {
    showVideo(await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } }));
  } catch (error) {
    say(`The camera cannot be used (${error.message}).`);
  }
});
$("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(results, null, 1)], { type: "application/json" }));
  link.download = "faces.json";
  link.click();
  URL.revokeObjectURL(link.href);
});
const drop = $("drop");
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop" && aligner !== undefined) take([...event.dataTransfer.files]);
  });
}

start().catch((error) => {
  console.error(error);
  say(`The models cannot be loaded: ${error.message}`);
});
