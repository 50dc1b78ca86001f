// Head pose by PnP against one 3D model of the 68 points, as facelm_sdk/pose.py, and how far eyes and mouth are open.

const ITERATIONS = 50;

/**
 * Return {yaw, pitch, roll} in degrees of 68 points [[x, y], ...], null where they are those of no face.
 * `head` has the model's `points` (68, 3), the indices of those that are used, `solid`, and the `distance` of the
 * camera in root mean square distances of the points from their mean.
 */
export function headPose(points, head) {
  const mean = [0, 1].map((axis) => average(points.map((point) => point[axis])));
  const spread = Math.sqrt(average(points.map(([x, y]) => (x - mean[0]) ** 2 + (y - mean[1]) ** 2)));
  if (!(spread > 0 && Number.isFinite(spread))) return null;
  const focal = head.distance * spread;
  const seen = head.solid.map((index) => points[index].map((value, axis) => (value - mean[axis]) / focal));
  const model = head.solid.map((index) => head.points[index]);
  let best = null;
  for (const start of starts(model, seen)) {
    const found = refined(model, seen, start);
    if (found !== null && (best === null || found.cost < best.cost)) best = found;
  }
  if (best === null) return null;
  const turn = best.turn;
  const degrees = (angle) => (angle * 180) / Math.PI;
  return {
    yaw: degrees(Math.atan2(turn[2][0], turn[2][2])),
    pitch: degrees(-Math.asin(Math.min(1, Math.max(-1, turn[2][1])))),
    roll: degrees(Math.atan2(-turn[0][1], turn[1][1])),
  };
}

/** Return {eyes: {left, right}, mouth} of 68 points: mean distances of pairs of points over that of another pair. */
export function openness(points, ratios) {
  const distance = ([i, j]) => Math.hypot(points[i][0] - points[j][0], points[i][1] - points[j][1]);
  const ratio = ({ pairs, width }) => average(pairs.map(distance)) / distance(width);
  const [left, right, mouth] = [...ratios.eyes, ratios.mouth].map((one) => {
    const value = ratio(one);
    return Number.isFinite(value) ? value : null;
  });
  return { eyes: left === null || right === null ? null : { left, right }, mouth };
}

/** Return the poses to start from: that of an orthographic camera, its mirror image in depth, and the frontal one. */
function starts(model, seen) {
  const centre = [0, 1, 2].map((axis) => average(model.map((point) => point[axis])));
  const middle = [0, 1].map((axis) => average(seen.map((point) => point[axis])));
  const moments = zeros(3, 3);
  const shared = [zeros(3, 1), zeros(3, 1)];
  model.forEach((point, index) => {
    const offset = point.map((value, axis) => value - centre[axis]);
    for (let i = 0; i < 3; i++) {
      for (let j = 0; j < 3; j++) moments[i][j] += offset[i] * offset[j];
      for (const axis of [0, 1]) shared[axis][i][0] += offset[i] * (seen[index][axis] - middle[axis]);
    }
  });
  const rows = shared.map((side) => solved(moments, side.map((entry) => entry[0])));
  if (rows.some((row) => row === null)) return [];
  const scale = (norm(rows[0]) + norm(rows[1])) / 2;
  if (!(scale > 0)) return [];
  const mirrored = rows.map(([x, y, z]) => [x, y, -z]);
  const frontal = [[1, 0, 0], [0, 1, 0]];
  return [rows, mirrored, frontal].map((two) => {
    const turn = orthonormal(...two);
    const depth = 1 / scale;
    const moved = turn.map((row) => dot(row, centre));
    return { turn, shift: [middle[0] * depth - moved[0], middle[1] * depth - moved[1], depth - moved[2]] };
  });
}

/** Return the pose of least squared distance between the projected model and the points, by Levenberg-Marquardt. */
function refined(model, seen, { turn, shift }) {
  let damping = 1e-3;
  let now = normal(model, seen, turn, shift);
  for (let round = 0; now !== null && round < ITERATIONS; round++) {
    const damped = now.matrix.map((row, i) => row.map((value, j) => (i === j ? value * (1 + damping) : value)));
    const step = solved(damped, now.gradient);
    if (step === null) break;
    const turned = product(rotation(step.slice(0, 3)), turn);
    const shifted = shift.map((value, axis) => value + step[3 + axis]);
    const next = normal(model, seen, turned, shifted);
    if (next === null || next.cost > now.cost) {
      damping *= 10;
      if (damping > 1e8) break;
      continue;
    }
    const gained = now.cost - next.cost;
    [turn, shift, damping, now] = [turned, shifted, damping / 10, next];
    if (gained <= 1e-15 * now.cost) break;
  }
  return now === null ? null : { turn, shift, cost: now.cost };
}

/** Return the normal equations of a step (three of turning, three of shifting), null where a point is behind the camera. */
function normal(model, seen, turn, shift) {
  const [matrix, gradient] = [zeros(6, 6), new Array(6).fill(0)];
  let cost = 0;
  for (let index = 0; index < model.length; index++) {
    const [px, py, pz] = turn.map((row) => dot(row, model[index]));
    const [x, y, z] = [px + shift[0], py + shift[1], pz + shift[2]];
    if (!(z > 0)) return null;
    const [u, v] = [x / z, y / z];
    const rows = [
      [-u * py, pz + u * px, -py, 1, 0, -u],
      [-pz - v * py, v * px, px, 0, 1, -v],
    ];
    [seen[index][0] - u, seen[index][1] - v].forEach((residual, axis) => {
      cost += residual * residual;
      const row = rows[axis].map((value) => value / z);
      for (let i = 0; i < 6; i++) {
        gradient[i] += row[i] * residual;
        for (let j = 0; j < 6; j++) matrix[i][j] += row[i] * row[j];
      }
    });
  }
  return { matrix, gradient, cost };
}

/** Return the rotation about a vector by its length (Rodrigues). */
function rotation(vector) {
  const angle = norm(vector);
  if (angle < 1e-12) return [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  const [x, y, z] = vector.map((value) => value / angle);
  const [sin, cos] = [Math.sin(angle), Math.cos(angle)];
  const rest = 1 - cos;
  return [
    [cos + x * x * rest, x * y * rest - z * sin, x * z * rest + y * sin],
    [x * y * rest + z * sin, cos + y * y * rest, y * z * rest - x * sin],
    [x * z * rest - y * sin, y * z * rest + x * sin, cos + z * z * rest],
  ];
}

function orthonormal(one, other) {
  const first = one.map((value) => value / norm(one));
  const along = dot(first, other);
  const rest = other.map((value, axis) => value - along * first[axis]);
  const second = rest.map((value) => value / norm(rest));
  const [[a, b, c], [d, e, f]] = [first, second];
  return [first, second, [b * f - c * e, c * d - a * f, a * e - b * d]];
}

/** Return x of matrix x = vector, by elimination with pivots; null where there is none. */
function solved(matrix, vector) {
  const rows = matrix.map((row, index) => [...row, vector[index]]);
  const count = rows.length;
  for (let i = 0; i < count; i++) {
    let pivot = i;
    for (let j = i + 1; j < count; j++) if (Math.abs(rows[j][i]) > Math.abs(rows[pivot][i])) pivot = j;
    [rows[i], rows[pivot]] = [rows[pivot], rows[i]];
    if (!(Math.abs(rows[i][i]) > 1e-300)) return null;
    for (let j = i + 1; j < count; j++) {
      const times = rows[j][i] / rows[i][i];
      for (let k = i; k <= count; k++) rows[j][k] -= times * rows[i][k];
    }
  }
  const found = new Array(count).fill(0);
  for (let i = count - 1; i >= 0; i--) {
    let rest = rows[i][count];
    for (let k = i + 1; k < count; k++) rest -= rows[i][k] * found[k];
    found[i] = rest / rows[i][i];
  }
  return found;
}

const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const dot = (one, other) => one.reduce((sum, value, index) => sum + value * other[index], 0);
const norm = (vector) => Math.sqrt(dot(vector, vector));
const zeros = (rows, columns) => Array.from({ length: rows }, () => new Array(columns).fill(0));
const product = (one, other) => one.map((row) => [0, 1, 2].map((j) => row.reduce((s, value, k) => s + value * other[k][j], 0)));
