// Pictures {data, width, height} of RGBA bytes: resampled as OpenCV does it, to a grey level. Canvas would not:
// browsers differ in how they shrink. Pixel centres lie at whole numbers.

/** Return the picture at width x height: shrunk by areas, or bilinear where a side grows. */
export function resized(picture, width, height) {
  if (picture.width === width && picture.height === height) return picture;
  const shrinks = picture.width >= width && picture.height >= height;
  return shrinks ? byAreas(picture, width, height) : bilinear(picture, width, height);
}

/** Return the means of 2 by 2 pixels; of an odd side the last pixel is left out. */
export function halved(picture) {
  return meansOfFour(picture, 2, 0);
}

/** Return the means of the inner 2 by 2 of 4 by 4 pixels. */
export function thinned(picture) {
  return meansOfFour(picture, 4, 1);
}

function meansOfFour({ data, width }, step, first, height = data.length / 4 / width) {
  const small = blank(Math.floor(width / step), Math.floor(height / step));
  let to = 0;
  for (let y = 0; y < small.height; y++) {
    let from = 4 * ((y * step + first) * width + first);
    for (let x = 0; x < small.width; x++, from += 4 * step, to += 4) {
      const below = from + 4 * width;
      for (let c = 0; c < 3; c++) {
        const sum = data[from + c] + data[from + 4 + c] + data[below + c] + data[below + 4 + c];
        small.data[to + c] = (sum + 2) >> 2;
      }
    }
  }
  return small;
}

/** Of each target pixel along a side: which source pixels it covers, from the first, and their parts of it. */
function covered(from, to) {
  const step = from / to;
  return Array.from({ length: to }, (_, index) => {
    const [low, high] = [index * step, Math.min((index + 1) * step, from)];
    const first = Math.floor(low + 1e-6);
    const last = Math.max(first + 1, Math.ceil(high - 1e-6));
    const parts = [];
    for (let k = first; k < last; k++) parts.push((Math.min(high, k + 1) - Math.max(low, k)) / (high - low));
    return { first, parts };
  });
}

function byAreas({ data, width, height }, toWidth, toHeight) {
  const small = blank(toWidth, toHeight);
  const [columns, rows] = [covered(width, toWidth), covered(height, toHeight)];
  const line = new Float32Array(3 * width);
  for (let y = 0; y < toHeight; y++) {
    line.fill(0);
    rows[y].parts.forEach((part, k) => {
      let from = 4 * width * (rows[y].first + k);
      for (let i = 0; i < line.length; i += 3, from += 4) {
        for (let c = 0; c < 3; c++) line[i + c] += part * data[from + c];
      }
    });
    for (let x = 0; x < toWidth; x++) {
      const { first, parts } = columns[x];
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let k = 0; k < parts.length; k++) sum += parts[k] * line[3 * (first + k) + c];
        small.data[4 * (y * toWidth + x) + c] = sum; // rounded by the clamped array
      }
    }
  }
  return small;
}

/** Of each target pixel along a side: the source pixel before it and the part of the one behind. */
function between(from, to) {
  return Array.from({ length: to }, (_, index) => {
    const place = Math.min(Math.max(((index + 0.5) * from) / to - 0.5, 0), from - 1);
    const first = Math.min(Math.floor(place), Math.max(from - 2, 0));
    return { first, next: Math.min(first + 1, from - 1), part: place - first };
  });
}

function bilinear({ data, width, height }, toWidth, toHeight) {
  const large = blank(toWidth, toHeight);
  const [columns, rows] = [between(width, toWidth), between(height, toHeight)];
  let to = 0;
  for (const row of rows) {
    const [above, below] = [4 * width * row.first, 4 * width * row.next];
    for (const column of columns) {
      const [left, right] = [4 * column.first, 4 * column.next];
      for (let c = 0; c < 3; c++) {
        const top = data[above + left + c] * (1 - column.part) + data[above + right + c] * column.part;
        const bottom = data[below + left + c] * (1 - column.part) + data[below + right + c] * column.part;
        large.data[to + c] = top * (1 - row.part) + bottom * row.part;
      }
      to += 4;
    }
  }
  return large;
}

/** Return BGR bytes of a black width x height frame with the picture at (left, top). */
export function bgr({ data, width, height }, frame = { width, height }, left = 0, top = 0) {
  const bytes = new Uint8Array(3 * frame.width * frame.height);
  const [columns, rows] = [Math.min(width, frame.width - left), Math.min(height, frame.height - top)];
  for (let y = 0; y < rows; y++) {
    let [from, to] = [4 * y * width, 3 * ((y + top) * frame.width + left)];
    for (let x = 0; x < columns; x++, from += 4, to += 3) {
      bytes[to] = data[from + 2];
      bytes[to + 1] = data[from + 1];
      bytes[to + 2] = data[from];
    }
  }
  return bytes;
}

/**
 * Cut a crop into `out`, (size, size, 3) BGR bytes: bilinear, black outside the picture.
 * `matrix` [a, b, x, c, d, y] takes picture pixels to crop pixels. A picture more than twice as fine is averaged first.
 */
export function warp(picture, matrix, size, out) {
  let inverse = inverted(matrix);
  if (Math.sqrt(Math.abs(determinant(inverse))) > 2) {
    [picture, matrix] = shrunk(picture, matrix, inverse, size);
    inverse = inverted(matrix);
  }
  const { data, width, height } = picture;
  const [a, b, x0, c, d, y0] = inverse;
  const at = (x, y, channel) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : data[4 * (y * width + x) + channel]);
  let to = 0;
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++, to += 3) {
      const [px, py] = [a * x + b * y + x0, c * x + d * y + y0];
      const [left, top] = [Math.floor(px), Math.floor(py)];
      if (left < -1 || top < -1 || left >= width || top >= height) continue;
      const [u, v] = [px - left, py - top];
      for (let channel = 0; channel < 3; channel++) {
        const above = at(left, top, channel) * (1 - u) + at(left + 1, top, channel) * u;
        const below = at(left, top + 1, channel) * (1 - u) + at(left + 1, top + 1, channel) * u;
        out[to + 2 - channel] = Math.round(above * (1 - v) + below * v);
      }
    }
  }
}

/** Return the part of the picture that the crop shows, averaged to about its resolution, and the matrix for it. */
function shrunk(picture, matrix, inverse, size) {
  const factor = Math.max(1, Math.floor(Math.sqrt(Math.abs(determinant(inverse)))));
  const corners = [[0, 0], [size, 0], [0, size], [size, size]].map(([x, y]) => applied(inverse, x, y));
  const [xs, ys] = [corners.map((corner) => corner[0]), corners.map((corner) => corner[1])];
  const [x1, y1] = [xs, ys].map((values) => Math.max(0, Math.floor(Math.min(...values)) - 2 * factor));
  const [x2, y2] = [xs, ys].map((values) => Math.ceil(Math.max(...values)) + 2 * factor);
  const columns = Math.floor((Math.min(x2, picture.width) - x1) / factor);
  const rows = Math.floor((Math.min(y2, picture.height) - y1) / factor);
  if (columns < 1 || rows < 1) return [picture, matrix];
  const part = cut(picture, x1, y1, columns * factor, rows * factor);
  const [a, b, x, c, d, y] = matrix;
  const [cx, cy] = [x1 + (factor - 1) / 2, y1 + (factor - 1) / 2];
  const fitted = [a * factor, b * factor, a * cx + b * cy + x, c * factor, d * factor, c * cx + d * cy + y];
  return [byAreas(part, columns, rows), fitted];
}

function cut({ data, width }, left, top, columns, rows) {
  const part = blank(columns, rows);
  for (let y = 0; y < rows; y++) {
    const from = 4 * ((y + top) * width + left);
    part.data.set(data.subarray(from, from + 4 * columns), 4 * y * columns);
  }
  return part;
}

function blank(width, height) {
  return { data: new Uint8ClampedArray(4 * width * height), width, height };
}

function determinant([a, b, , c, d]) {
  return a * d - b * c;
}

/** Return the matrix that takes points back. */
export function inverted([a, b, x, c, d, y]) {
  const area = a * d - b * c;
  return [d / area, -b / area, (b * y - d * x) / area, -c / area, a / area, (c * x - a * y) / area];
}

/** Return a point under a matrix [a, b, x, c, d, y]. */
export function applied([a, b, x0, c, d, y0], x, y) {
  return [a * x + b * y + x0, c * x + d * y + y0];
}
