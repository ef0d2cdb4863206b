// Fields to start from, made of a few numbers, so that a link can carry them.

export const STARTS = [["random", "random"], ["waves", "waves"], ["bump", "a bump"], ["step", "a step"]];

// Values of a field, row by row, with a mean and a deviation.
export function startField({ shape, kind, detail, seed }, { mean, sd }, size) {
  const unit = MAKERS[kind](shape, detail, seed);
  return Array.from(unit, (v) => mean + size * sd * v);
}

// Nested lists of a shape.
export function nested(values, shape) {
  if (shape.length === 1) return Array.from(values);
  const [n, ...rest] = shape, part = values.length / n;
  return Array.from({ length: n }, (_, i) => nested(values.slice(i * part, (i + 1) * part), rest));
}

const MAKERS = {
  waves: (shape, detail) => over(shape, (x) => x.reduce((product, u, k) => product * Math.sin(2 * Math.PI * detail * u + (k * Math.PI) / 2), Math.SQRT2)),
  bump: (shape, detail) => over(shape, (x) => 2 * Math.exp(-x.reduce((sum, u) => sum + (u - 0.5) ** 2, 0) * 8 * detail)),
  step: (shape, detail) => over(shape, (x) => (x.every((u) => Math.abs(u - 0.5) < 0.4 / Math.sqrt(detail)) ? 1.4 : -0.4)),
  random: (shape, detail, seed) => standardised(waves(shape, detail, seed)),
};

// A function of places in the unit cube, at each point of a grid.
function over(shape, f) {
  const total = shape.reduce((a, b) => a * b, 1), found = new Float64Array(total), x = shape.map(() => 0);
  for (let i = 0; i < total; i++) {
    let rest = i;
    for (let k = shape.length - 1; k >= 0; k--) {
      x[k] = (rest % shape[k]) / shape[k];
      rest = Math.floor(rest / shape[k]);
    }
    found[i] = f(x);
  }
  return found;
}

// A sum of waves of random heights and phases, no shorter than 1/detail.
function waves(shape, detail, seed) {
  const random = generator(seed), parts = [];
  const across = shape.length > 1 ? Array.from({ length: 2 * detail + 1 }, (_, i) => i - detail) : [0];
  for (let k = 0; k <= detail; k++) {
    for (const l of across) {
      if ((k === 0 && l <= 0) || k * k + l * l > detail * detail) continue;
      parts.push({ k, l, height: 2 * random() - 1, phase: 2 * Math.PI * random() });
    }
  }
  return over(shape, ([u, v = 0]) => parts.reduce((sum, p) => sum + p.height * Math.cos(2 * Math.PI * (p.k * u + p.l * v) + p.phase), 0));
}

function standardised(values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const sd = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length) || 1;
  return values.map((v) => (v - mean) / sd);
}

// Numbers in [0, 1) from a seed (mulberry32).
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
