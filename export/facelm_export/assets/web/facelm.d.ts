/** Facial landmarks in the browser and in Node.js. Coordinates are (x, y) pixels of the picture, pixel centres at whole numbers. */

export type Point = [x: number, y: number];

/** A face, as `facelm align` writes it in JSON. */
export interface Face {
  /** x1, y1, x2, y2. */
  bbox: [number, number, number, number];
  /** The detector's score, 0 to 1; null where the five points were given. */
  score: number | null;
  /** Image-left eye, image-right eye, nose tip, image-left and image-right mouth corner. */
  kps: Point[];
  /** The convention of the landmarks, such as "ibug68". */
  markup: string;
  landmarks: Point[];
  /** Of each landmark the probability that it is right; null where the model does not say. */
  scores: number[] | null;
  /** The probability that this is a face; null where the model does not say. */
  presence: number | null;
  /** Degrees: positive to the picture's right, up, and clockwise. null where the markup gives no 68 points. */
  pose: { yaw: number; pitch: number; roll: number } | null;
  /** Eye aspect ratios, about 0.3 open; null as pose is. */
  eye_openness: { left: number; right: number } | null;
  /** Mouth aspect ratio, 0 where the lips touch; null as pose is. */
  mouth_openness: number | null;
}

/** RGBA bytes, row by row, as an ImageData holds them. */
export interface Pixels {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
}

/** In Node.js: Pixels alone. */
export type Picture =
  | Pixels
  | ImageData
  | ImageBitmap
  | HTMLImageElement
  | HTMLCanvasElement
  | OffscreenCanvas
  | HTMLVideoElement
  | VideoFrame;

export interface Options {
  /** What runs the landmark model; "auto", the default, takes WebGPU where the browser has it, else WebAssembly. */
  device?: "auto" | "webgpu" | "wasm";
  /** Threads of WebAssembly; default: ONNX Runtime's choice on pages that are cross-origin isolated, else 1. */
  threads?: number;
  /** The long side in pixels at which the detector sees the picture; "auto", the default, looks closer where it must. */
  detSize?: number | "auto";
  /** Score threshold of the detector; default: the model's own. */
  detThresh?: number;
  /** The most faces; the best are kept. */
  maxFaces?: number;
  /** Drops detections that the landmark model takes for no face: below 0.5 by default, 0 keeps all. */
  minPresence?: number;
  /** Align faces anew whose five points were off; default: true. */
  realign?: boolean;
  /** An ONNX Runtime of your own in the place of the folder's, such as `await import("onnxruntime-node")`. */
  ort?: unknown;
}

export class Aligner {
  /** Opens the models of the folder `base`; default: the folder of this module. Rejects where they cannot be had. */
  static load(base?: string | URL, options?: Options): Promise<Aligner>;
  private constructor();
  /** What runs the landmark model; "ort" where one was given. */
  readonly device: "webgpu" | "wasm" | "ort";
  /** Threads of WebAssembly. */
  readonly threads: number;
  /** What facelm-export wrote: the models' contracts, thresholds and the index runs to draw. */
  readonly manifest: Record<string, any>;
  /**
   * The faces of a picture, best score first; [] without one. With `kps`, five points a face, detection is skipped and
   * there is a face for each, in their order. Rejects with a TypeError for what is no picture. Calls wait for each other.
   */
  align(image: Picture, given?: { kps?: Point[][] }): Promise<Face[]>;
  /** The five points that a face's landmarks give. */
  kps(face: Pick<Face, "landmarks">): Point[];
  /** Frees the models' memory. */
  release(): Promise<void>;
}

/** The faces of a video, frame by frame; the detector runs where it must and in every `every`-th frame (10). */
export class Tracker {
  constructor(aligner: Aligner, options?: { every?: number });
  track(frame: Picture): Promise<Face[]>;
}
