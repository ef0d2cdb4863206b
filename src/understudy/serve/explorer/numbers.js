// Numbers as text.

const MINUS = "\u2212";

const signed = (text) => text.replace(/-/g, MINUS);

// A number with some significant digits: 0.0123, 4.5, 12 300, 6.5e−14.
export function number(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) {
    return signed(Number(value.toPrecision(digits)).toExponential().replace("e+", "e"));
  }
  return grouped(Number(value.toPrecision(digits)).toString());
}

// A number with a fixed number of decimals, for columns that line up.
export function fixed(value, decimals) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const text = value.toFixed(decimals);
  return grouped(Number(text) === 0 ? text.replace("-", "") : text);
}

// A number with all its significant digits, the last ones also where they are 0: 0.800.
export function precise(value, digits = 3) {
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-4 ? number(value, digits) : grouped(value.toPrecision(digits));
}

function grouped(text) {
  const [whole, part] = text.split(".");
  const spaced = whole.length > 5 ? whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") : whole;
  return signed(part ? spaced + "." + part : spaced);
}

// Texts of a mean and its interval, with the digits that the width makes worth reading.
export function interval({ mean, lower, upper }) {
  if (mean === null) return { mean: "–", ends: "–" };
  const width = upper !== null && lower !== null ? upper - lower : 0;
  const decimals = width > 0 ? 1 - Math.floor(Math.log10(width)) : 4;
  const size = Math.max(Math.abs(mean), Math.abs(lower ?? 0), Math.abs(upper ?? 0));
  if (decimals > 8 || size >= 1e7) {
    return { mean: number(mean), ends: number(lower) + " … " + number(upper) };
  }
  const text = (v) => fixed(v, Math.max(0, Math.min(8, decimals)));
  return { mean: text(mean), ends: text(lower) + " … " + text(upper) };
}

export const percent = (share) => Math.round(100 * share) + " %";

// A probability; none is called certain.
export const likely = (p) => (p > 0.999 ? "> 99.9 %" : p < 0.001 ? "< 0.1 %" : (100 * p).toFixed(p > 0.99 || p < 0.01 ? 1 : 0) + " %");

// A value of an input with as many digits as its range makes worth reading.
export function valueText(input, value) {
  if (typeof value !== "number") return String(value);
  if (input.kind !== "continuous") return grouped(String(value));
  if (input.log) return number(value, 4);
  const decimals = 3 - Math.floor(Math.log10(input.upper - input.lower));
  return decimals > 8 || decimals < -4 ? number(value) : fixed(value, Math.max(0, decimals));
}

// Round to significant digits, as a number.
export const rounded = (value, digits = 5) => Number(value.toPrecision(digits));

export const counted = (n, noun) => n.toLocaleString("en").replace(/,/g, "\u202f") + " " + noun + (n === 1 ? "" : "s");
