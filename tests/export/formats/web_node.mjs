// Answers tasks, a line of JSON each, with a line of JSON each.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const load = (site, file) => import(pathToFileURL(join(site, file)));
const read = async ({ file, width, height }) => ({ data: new Uint8Array(await readFile(file)), width, height });
const reasons = (works) => Promise.all(works.map((work) => work().then(() => null, (error) => `${error.name}: ${error.message}`)));

const kinds = {
  async align({ site, options, pictures }) {
    const { Aligner } = await load(site, "facelm.js");
    const aligner = await Aligner.load(undefined, options);
    // At once: the aligner itself does them one after the other.
    const faces = await Promise.all(pictures.map(async (one) => aligner.align(await read(one), one.kps ? { kps: one.kps } : {})));
    await aligner.release();
    return faces;
  },
  async track({ site, frames }) {
    const { Aligner, Tracker } = await load(site, "facelm.js");
    const tracker = new Tracker(await Aligner.load(), { every: 100 });
    const found = [];
    for (const frame of frames) found.push(await tracker.track(await read(frame)));
    return found;
  },
  async pose({ site, head, ratios, points }) {
    const { headPose, openness } = await load(site, "pose.js");
    return points.map((face) => [headPose(face, head), openness(face, ratios)]);
  },
  async pixels({ site, picture, sizes, matrices, size }) {
    const { halved, thinned, resized, bgr, warp } = await load(site, "pixels.js");
    const image = await read(picture);
    const warped = matrices.map((matrix) => {
      const out = new Uint8Array(3 * size * size);
      warp(image, matrix, size, out);
      return out;
    });
    const small = [halved(image), thinned(image), ...sizes.map(([width, height]) => resized(image, width, height))];
    return { resized: small.map((one) => Array.from(bgr(one))), warped: warped.map((one) => Array.from(one)) };
  },
  async run({ site, text, picture }) {
    const file = join(site, "page.mjs");
    await writeFile(file, `${text}\nexport { faces };`);
    Object.assign(globalThis, await read(picture));
    return (await import(pathToFileURL(file))).faces;
  },
  async refused({ site, picture }) {
    const { Aligner } = await load(site, "facelm.js");
    const aligner = await Aligner.load();
    const image = await read(picture);
    return reasons([
      () => Aligner.load(undefined, { detsize: 320 }),
      () => Aligner.load(undefined, { detSize: 20 }),
      () => Aligner.load(undefined, { device: "cuda" }),
      () => Aligner.load(pathToFileURL(join(site, "nowhere/"))),
      () => aligner.align({ ...image, width: image.width + 1 }),
      () => aligner.align("photo.jpg"),
      () => aligner.align(image, { kps: [[[1, 2], [3, 4]]] }),
      () => aligner.align(image, { kps: [[[9, 9], [9, 9], [9, 9], [9, 9], [9, 9]]] }),
    ]);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line);
  console.log(JSON.stringify(await kinds[task.kind](task)));
}
