// Picture in, faces out, as facelm_sdk.Aligner in Python: detection, crops, landmarks, and back to the picture's pixels.
// What the models want and every threshold come from manifest.json, which facelm-export writes of their contracts.

import { applied, bgr, halved, inverted, resized, thinned, warp } from "./pixels.js";
import { headPose, openness } from "./pose.js";

const IN_NODE = typeof process !== "undefined" && process.versions?.node !== undefined;

export class Aligner {
  #ort;
  #detector;
  #landmarker;
  #manifest;
  #options;
  #busy = Promise.resolve();

  /** Open the models beside this module, or at `base`. The options: see facelm.d.ts. */
  static async load(base = new URL("./", import.meta.url), options = {}) {
    const at = (file) => new URL(file, new URL(base, globalThis.document?.baseURI ?? import.meta.url));
    const manifest = JSON.parse(new TextDecoder().decode(await bytesOf(at("manifest.json"))));
    const aligner = new Aligner(manifest, checked(options, manifest));
    await aligner.#open(at);
    return aligner;
  }

  constructor(manifest, options) {
    this.#manifest = manifest;
    this.#options = options;
  }

  /** What runs the landmark model: "webgpu", "wasm", or "ort" where that was given. */
  device = "wasm";

  /** Threads of WebAssembly. */
  threads = 1;

  /** The contracts, thresholds and index runs to draw, as facelm-export wrote them. */
  get manifest() {
    return this.#manifest;
  }

  async #open(at) {
    const { detector, landmarks } = this.#manifest.models;
    const [one, other] = await Promise.all([detector, landmarks].map(({ file }) => bytesOf(at(file))));
    const wanted = this.#options.device;
    if (wanted === "webgpu" || (wanted === "auto" && this.#options.ort === undefined && (await hasWebGpu()))) {
      try {
        await this.#start(await import(at("ort/ort.jspi.min.mjs")), one, other, "webgpu");
        return;
      } catch (error) {
        if (wanted === "webgpu") throw error;
        console.warn("facelm: WebGPU cannot be used, WebAssembly takes its place:", error);
      }
    }
    await this.#start(this.#options.ort ?? (await import(at("ort/ort.wasm.min.mjs"))), one, other, "wasm");
  }

  async #start(ort, detector, landmarks, device) {
    ort.env.logLevel = "error";
    if (this.#options.ort === undefined) ort.env.wasm.numThreads = this.#options.threads ?? (IN_NODE ? 1 : 0);
    const providers = this.#options.ort === undefined ? { executionProviders: ["wasm"] } : {};
    this.#ort = ort;
    // The detector's many small and open shapes gain nothing from a GPU.
    this.#detector = await ort.InferenceSession.create(detector, providers);
    const options = device === "webgpu" ? { executionProviders: ["webgpu", "wasm"] } : providers;
    this.#landmarker = await ort.InferenceSession.create(landmarks, options);
    const { size } = this.#manifest.models.landmarks.spec.crop;
    await this.#landmarks(new Uint8Array(3 * size * size), 1); // the first run compiles
    this.device = this.#options.ort === undefined ? device : "ort";
    this.threads = ort.env.wasm?.numThreads || 1;
  }

  /** Return the faces of a picture, best score first; with `kps`, those around the given five points, in their order. */
  align(image, { kps } = {}) {
    const done = this.#busy.then(() => this.#align(image, kps)); // a session runs one picture at a time
    this.#busy = done.catch(() => {});
    return done;
  }

  async #align(image, given) {
    const picture = await pixelsOf(image);
    if (given !== undefined) {
      return this.#faces(picture, given.map((kps) => ({ bbox: null, score: null, kps: checkedKps(kps) })));
    }
    let candidates = await this.#detect(picture);
    const { maxFaces, minPresence } = this.#options;
    const faces = [];
    while (candidates.length > 0 && faces.length < maxFaces) {
      // The next best take the places of those that are no faces.
      const count = Math.min(candidates.length, maxFaces - faces.length);
      const found = await this.#aligned(picture, candidates.slice(0, count));
      faces.push(...found.filter((face) => face.presence === null || face.presence >= minPresence));
      candidates = candidates.slice(count);
    }
    return faces;
  }

  /** The faces of the candidates, those aligned anew whose five points were off. */
  async #aligned(picture, candidates) {
    const faces = await this.#faces(picture, candidates);
    const { alignment, models } = this.#manifest;
    if (!this.#options.realign || models.landmarks.spec.crop.kind !== "kps5") return faces;
    const five = faces.map((face) => this.kps(face));
    const off = faces.flatMap((face, index) => {
      const eyes = Math.hypot(five[index][1][0] - five[index][0][0], five[index][1][1] - five[index][0][1]);
      return distance(face.kps, five[index]) > alignment.realign * eyes ? [index] : [];
    });
    const again = await this.#faces(picture, off.map((index) => ({ ...candidates[index], kps: five[index] })));
    off.forEach((index, i) => (faces[index] = again[i]));
    return faces;
  }

  /** Return the five points [[x, y], ...] that a face's landmarks give. */
  kps(face) {
    return weighted(this.#manifest.points.kps5, face.landmarks);
  }

  async #faces(picture, candidates) {
    if (candidates.length === 0) return [];
    const { models, points, head, openness: ratios } = this.#manifest;
    const { crop, markup, num_landmarks: count } = models.landmarks.spec;
    const matrices = candidates.map((candidate) => this.#matrix(candidate));
    const stride = 3 * crop.size * crop.size;
    const crops = new Uint8Array(candidates.length * stride);
    matrices.forEach((matrix, index) => warp(picture, matrix, crop.size, crops.subarray(index * stride, (index + 1) * stride)));
    const found = await this.#landmarks(crops, candidates.length);
    return candidates.map(({ bbox, score, kps }, index) => {
      const back = inverted(matrices[index]);
      const landmarks = Array.from({ length: count }, (_, i) => {
        const at = 2 * (index * count + i);
        return applied(back, found.landmarks.data[at], found.landmarks.data[at + 1]);
      });
      const of68 = points.ibug68 === null ? null : weighted(points.ibug68, landmarks);
      const open = of68 === null ? { eyes: null, mouth: null } : openness(of68, ratios);
      const scores = found.scores?.data.slice(index * count, (index + 1) * count);
      return {
        bbox: bbox ?? around(landmarks),
        score,
        kps: kps ?? weighted(points.kps5, landmarks),
        markup,
        landmarks,
        scores: scores === undefined ? null : Array.from(scores),
        presence: found.presence?.data[index] ?? null,
        pose: of68 === null ? null : headPose(of68, head),
        eye_openness: open.eyes,
        mouth_openness: open.mouth,
      };
    });
  }

  /** The outputs of the landmark model for crops, in runs of as many as its graph takes. */
  async #landmarks(crops, count) {
    const { spec, batch } = this.#manifest.models.landmarks;
    const size = spec.crop.size;
    const step = batch ?? count;
    const stride = 3 * size * size;
    const parts = {};
    for (let first = 0; first < count; first += step) {
      const some = new Uint8Array(step * stride);
      some.set(crops.subarray(first * stride, (first + step) * stride));
      const outputs = await this.#landmarker.run({ crops: new this.#ort.Tensor("uint8", some, [step, size, size, 3]) });
      for (const name of this.#landmarker.outputNames) (parts[name] ??= []).push(outputs[name].data);
    }
    return Object.fromEntries(Object.entries(parts).map(([name, arrays]) => [name, { data: joined(arrays) }]));
  }

  /** The matrix [a, b, x, c, d, y] from the picture to a face's crop: CropRecipe.of_detection in Python. */
  #matrix({ bbox, kps }) {
    const { models, points, alignment } = this.#manifest;
    const { crop } = models.landmarks.spec;
    if (crop.kind === "kps5") return similarity(kps, crop.template);
    let box = bbox ?? boxAround(kps, alignment.mean_kps);
    if (crop.box === "landmarks") box = around(weighted(points.outline, kps));
    const [width, height] = [box[2] - box[0], box[3] - box[1]];
    const side = { max: Math.max(width, height), min: Math.min(width, height), mean: (width + height) / 2 }[crop.side];
    const scale = crop.size / (side * crop.scale);
    const centre = [(box[0] + box[2]) / 2 + crop.shift[0] * width, (box[1] + box[3]) / 2 + crop.shift[1] * height];
    const [x, y] = centre.map((value, axis) => (crop.size - 1) / 2 + (crop.offset?.[axis] ?? 0) - scale * value);
    return [scale, 0, x, 0, scale, y];
  }

  /** The detections of a picture, best score first: Detector in Python. */
  async #detect(picture) {
    const { width, height } = picture;
    const { detSize, detThresh } = this.#options;
    const rules = this.#manifest.detection;
    if (detSize !== "auto") {
      return merged(await this.#detectAtScale(picture, detSize / Math.max(width, height), detThresh), rules);
    }
    const most = Math.min(Math.sqrt(rules.max_pixels / (width * height)), rules.max_pixels / rules.min_side / Math.max(width, height));
    const wanted = Math.max(rules.base_long_side / Math.max(width, height), rules.base_short_side / Math.min(width, height));
    const base = Math.min(wanted, rules.max_upscale, most);
    const least = Math.min(rules.low_score, detThresh);
    const first = await this.#detectAtScale(picture, base, least);
    const passes = [first];
    for (let scale = base, zoom = 0; zoom < rules.zooms; zoom++) {
      const closer = Math.min(rules.zoom * scale, 1, most);
      const small = passes.at(-1).some(({ bbox }) => Math.max(bbox[2] - bbox[0], bbox[3] - bbox[1]) * scale < rules.small_face);
      if (closer <= scale || !small) break;
      scale = closer;
      passes.push(await this.#detectAtScale(picture, scale, least));
    }
    if (first.some(({ bbox }) => fillsFrame(bbox, width, height, rules))) {
      const [left, top] = [width, height].map((side) => Math.floor(((1 - rules.context) / 2) * base * side));
      const frame = { width: rounded(width * base), height: rounded(height * base) };
      passes.push(await this.#detectAtScale(picture, rules.context * base, least, { frame, left, top }));
    }
    return merged(passes.flat().filter(({ score }) => score >= detThresh), rules);
  }

  async #detectAtScale(picture, scale, least, { frame, left = 0, top = 0 } = {}) {
    const rules = this.#manifest.detection;
    const size = { width: Math.max(1, rounded(picture.width * scale)), height: Math.max(1, rounded(picture.height * scale)) };
    const { small, seen } = shrunk(picture, size, rules);
    const shown = {
      width: Math.max((frame ?? size).width, rules.min_side, left + size.width),
      height: Math.max((frame ?? size).height, rules.min_side, top + size.height),
    };
    const bytes = bgr(small, shown, left, top);
    const image = new this.#ort.Tensor("uint8", bytes, [1, shown.height, shown.width, 3]);
    const { boxes, scores, kps } = await this.#detector.run({ image });
    // Pixel centres lie at whole numbers, so a pixel's own half is scaled too.
    const zoom = [size.width / seen.width, size.height / seen.height];
    const back = (data, at) => [(data[at] - left + 0.5) / zoom[0] - 0.5, (data[at + 1] - top + 0.5) / zoom[1] - 0.5];
    return Array.from(scores.data, (score, index) => ({
      score,
      bbox: [...back(boxes.data, 4 * index), ...back(boxes.data, 4 * index + 2)],
      kps: [0, 1, 2, 3, 4].map((point) => back(kps.data, 10 * index + 2 * point)),
    })).filter(({ score }) => score >= least);
  }

  /** Free the models' memory. */
  async release() {
    await this.#busy;
    await Promise.all([this.#detector.release(), this.#landmarker.release()]);
  }
}

/**
 * Faces of a video, frame by frame: the crops of a frame come from the landmarks of the one before, and the detector
 * runs only in every `every`-th frame, and where no face is followed or one was lost.
 */
export class Tracker {
  #aligner;
  #every;
  #faces = [];
  #since = 0;

  constructor(aligner, { every = 10 } = {}) {
    this.#aligner = aligner;
    this.#every = every;
  }

  /** Return the faces of the next frame. */
  async track(frame) {
    const { models, alignment, detection } = this.#aligner.manifest;
    const known = this.#faces;
    const picture = await pixelsOf(frame);
    this.#since += 1;
    let followed = [];
    if (known.length > 0 && models.landmarks.spec.has_presence && this.#since < this.#every) {
      const found = await this.#aligner.align(picture, { kps: known.map((face) => this.#aligner.kps(face)) });
      followed = found
        .map((face, index) => ({ ...face, score: known[index].score }))
        .filter((face) => face.presence >= alignment.min_presence && isInside(face.landmarks, picture));
      followed = merged(followed, detection);
    }
    if (followed.length === 0 || followed.length < known.length) {
      followed = await this.#aligner.align(picture);
      this.#since = 0;
    }
    this.#faces = followed;
    return followed;
  }
}

const MIN_INSIDE = 0.6; // part of the landmarks that must lie in the picture

function isInside(points, { width, height }) {
  return points.filter(([x, y]) => x >= 0 && y >= 0 && x < width && y < height).length >= MIN_INSIDE * points.length;
}

/** Return {data, width, height} of RGBA bytes of a picture of any kind. */
async function pixelsOf(image) {
  if (image?.data !== undefined) {
    const { data, width, height } = image;
    const bytes = data instanceof Uint8Array || data instanceof Uint8ClampedArray;
    if (bytes && width > 0 && height > 0 && data.length === 4 * width * height) return { data, width, height };
    throw new TypeError(`a picture's data is width * height * 4 RGBA bytes; got ${data.length} for ${width}x${height}`);
  }
  if (typeof image?.decode === "function") await image.decode(); // an <img>
  const width = image?.naturalWidth ?? image?.videoWidth ?? image?.displayWidth ?? image?.width;
  const height = image?.naturalHeight ?? image?.videoHeight ?? image?.displayHeight ?? image?.height;
  if (!(width > 0 && height > 0)) {
    throw new TypeError("a picture is an ImageData, ImageBitmap, <img>, <canvas>, <video> that plays, or {data, width, height}");
  }
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

async function bytesOf(url) {
  if (url.protocol === "file:") return new Uint8Array(await (await import("node:fs/promises")).readFile(url));
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} cannot be read: ${answer.status} ${answer.statusText}`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function hasWebGpu() {
  if (globalThis.navigator?.gpu === undefined || !("Suspending" in WebAssembly)) return false;
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return adapter !== null && !(adapter.info?.isFallbackAdapter ?? false); // one in software is slower than WebAssembly
}

function checked(options, manifest) {
  const known = {
    device: "auto",
    threads: undefined,
    detSize: "auto",
    detThresh: manifest.models.detector.spec.det_thresh,
    maxFaces: Infinity,
    minPresence: manifest.alignment.min_presence,
    realign: true,
    ort: undefined,
  };
  for (const name of Object.keys(options)) {
    if (!(name in known)) throw new TypeError(`there is no option ${name}; there are ${Object.keys(known).join(", ")}`);
  }
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const all = { ...known, ...given };
  const { device, detSize, maxFaces } = all;
  if (!["auto", "webgpu", "wasm"].includes(device)) throw new TypeError(`device is auto, webgpu or wasm, not ${device}`);
  const [least, most] = [manifest.detection.min_side, manifest.detection.max_side];
  if (detSize !== "auto" && !(Number.isInteger(detSize) && detSize >= least && detSize <= most)) {
    throw new TypeError(`detSize is "auto" or a long side of ${least} to ${most} pixels, not ${detSize}`);
  }
  if (!(maxFaces >= 1)) throw new TypeError(`maxFaces is at least 1, not ${maxFaces}`);
  for (const name of ["detThresh", "minPresence"]) {
    if (!(all[name] >= 0 && all[name] <= 1)) throw new TypeError(`${name} is a number from 0 to 1, not ${all[name]}`);
  }
  return all;
}

function checkedKps(kps) {
  const fits = Array.isArray(kps) && kps.length === 5 && kps.every((point) => point.length === 2 && point.every(Number.isFinite));
  if (!fits) throw new TypeError("kps are five points [[x, y], ...] a face, finite");
  return kps;
}

/** The picture in a size by areas, halved as often as it can be first; `seen`: how much of the picture that shows. */
function shrunk(picture, size, rules) {
  let whole = 1;
  for (const [step, least, shrink] of [[rules.thinned, rules.far, thinned], [2, 2, halved]]) {
    while (Math.floor(picture.width / least) >= size.width && Math.floor(picture.height / least) >= size.height) {
      picture = shrink(picture);
      whole *= step;
    }
  }
  const seen = { width: whole * picture.width, height: whole * picture.height };
  return { small: resized(picture, size.width, size.height), seen };
}

function fillsFrame([x1, y1, x2, y2], width, height, { border, fills_frame: part }) {
  const wide = x1 <= border * width && x2 >= (1 - border) * width - 1;
  const high = y1 <= border * height && y2 >= (1 - border) * height - 1;
  return wide || high || area([x1, y1, x2, y2]) > part * width * height;
}

/** Greedy non-maximum suppression, best score first; a box mostly inside a better one goes too. */
function merged(found, { max_iou: maxIou, max_contained: maxContained }) {
  const kept = [];
  for (const one of [...found].sort((a, b) => b.score - a.score)) {
    const covered = kept.some(({ bbox }) => {
      const shared = area([
        ...[0, 1].map((i) => Math.max(bbox[i], one.bbox[i])),
        ...[2, 3].map((i) => Math.min(bbox[i], one.bbox[i])),
      ]);
      const own = area(one.bbox);
      return shared > maxIou * Math.max(area(bbox) + own - shared, 1e-9) || shared > maxContained * Math.max(own, 1e-9);
    });
    if (!covered) kept.push(one);
  }
  return kept;
}

function area([x1, y1, x2, y2]) {
  return Math.max(0, x2 - x1) * Math.max(0, y2 - y1);
}

/** The least-squares similarity [a, b, x, c, d, y] that maps points to others: transform.similarity in Python. */
function similarity(source, target) {
  const mean = (points) => [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
  const [[sx, sy], [tx, ty]] = [mean(source), mean(target)];
  let [norm, along, across] = [0, 0, 0];
  source.forEach(([x, y], index) => {
    const [u, v] = [target[index][0] - tx, target[index][1] - ty];
    norm += (x - sx) ** 2 + (y - sy) ** 2;
    along += (x - sx) * u + (y - sy) * v;
    across += (x - sx) * v - (y - sy) * u;
  });
  const [a, c] = [along / norm, across / norm];
  if (!(Math.hypot(a, c) > 1e-6)) throw new RangeError("the five points determine no crop (they are mirrored or coincide)");
  return [a, -c, tx - a * sx + c * sy, c, a, ty - c * sx - a * sy];
}

/** Points as weighted means of others; a row of `table` holds [index, weight] pairs. */
function weighted(table, points) {
  return table.map((row) => [0, 1].map((axis) => row.reduce((sum, [index, weight]) => sum + weight * points[index][axis], 0)));
}

function around(points) {
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

/** The upright box of a face of which only the five points are known. */
function boxAround(kps, meanKps) {
  const matrix = similarity(meanKps, kps);
  const [x, y] = applied(matrix, 0.5, 0.5);
  const half = Math.hypot(matrix[0], matrix[3]) / 2;
  return [x - half, y - half, x + half, y + half];
}

function distance(points, others) {
  return points.reduce((sum, [x, y], i) => sum + Math.hypot(x - others[i][0], y - others[i][1]), 0) / points.length;
}

function joined(arrays) {
  if (arrays.length === 1) return arrays[0];
  const whole = new Float32Array(arrays.reduce((sum, array) => sum + array.length, 0));
  let at = 0;
  for (const array of arrays) {
    whole.set(array, at);
    at += array.length;
  }
  return whole;
}

/** Round a half to the even number, as Python does. */
function rounded(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}
