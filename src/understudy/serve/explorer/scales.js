// Scales: where a value lies between two ends, from 0 to 1, and which values to mark.
import { number } from "./numbers.js";

export function linear(low, high) {
  const span = high - low || 1;
  return {
    low, high, kind: "linear",
    unit: (v) => (v - low) / span,
    value: (u) => low + u * (high - low),
    ticks: (most) => linearTicks(low, high, most),
    text: (v) => number(v, 4),
  };
}

export function logarithmic(low, high) {
  const a = Math.log(low), b = Math.log(high), span = b - a || 1;
  return {
    low, high, kind: "log",
    unit: (v) => (Math.log(Math.max(v, Number.MIN_VALUE)) - a) / span,
    value: (u) => Math.exp(a + u * (b - a)),
    ticks: (most) => logTicks(low, high, most),
    text: (v) => number(v, 3),
  };
}

// Choices side by side, each in a cell of its own.
export function choices(names) {
  const n = names.length;
  return {
    low: 0, high: n - 1, kind: "choices", names,
    unit: (index) => (index + 0.5) / n,
    value: (u) => Math.max(0, Math.min(n - 1, Math.floor(u * n))),
    ticks: () => names.map((_, index) => index),
    text: (index) => String(names[index]),
  };
}

// The scale of an input; its ends may be moved for values beyond its range.
export function scaleOf(input, low = input.lower, high = input.upper) {
  if (input.kind === "categorical") return choices(input.choices);
  return input.log ? logarithmic(low, high) : linear(low, high);
}

// Ends of some values with a little room; those that are not numbers are passed over.
export function padded(values, room = 0.05) {
  let low = Infinity, high = -Infinity;
  for (const v of values) {
    if (v === null || !Number.isFinite(v)) continue;
    if (v < low) low = v;
    if (v > high) high = v;
  }
  if (low > high) return [0, 1];
  const more = room * (high - low || Math.abs(high) || 1);
  return [low - more, high + more];
}

function linearTicks(low, high, most) {
  const rough = (high - low) / Math.max(1, most);
  if (!(rough > 0) || !Number.isFinite(rough)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const steps = [0.2, 0.5, 1, 2, 5, 10].map((m) => m * power);
  const inside = (step) => Math.floor(high / step + 1e-9) - Math.ceil(low / step - 1e-9) + 1;
  const wide = steps.findIndex((s) => s >= rough * 0.999);
  const step = steps[inside(steps[wide]) < 2 ? Math.max(0, wide - 1) : wide];
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

// Powers of ten; where few of them fit, twice and five times them as well, or even steps.
function logTicks(low, high, most) {
  const decades = Math.log10(high / low);
  if (decades < 0.7) return linearTicks(low, high, most);
  const steps = 3 * decades <= most ? [1, 2, 5] : 1.5 * decades <= most || decades < 1.5 ? [1, 3] : [1];
  const every = steps.length > 1 ? 1 : Math.ceil(decades / most);
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    if (((power % every) + every) % every) continue;
    for (const step of steps) found.push(Number(step + "e" + power));
  }
  const slack = 1e-9;
  return found.filter((v) => v >= low * (1 - slack) && v <= high * (1 + slack));
}
