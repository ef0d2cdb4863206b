// Small pictures along each input: mean, interval, runs, and the present point.
import { element } from "./element.js";
import { number } from "./numbers.js";
import { colour, Picture } from "./picture.js";
import { linear, padded, scaleOf } from "./scales.js";

const HEIGHT = 168;
export const MOST = 12; // inputs with a picture

export class Slices {
  // `moved(name, value, since)` hears of drags in a picture.
  constructor(place, moved) {
    this.place = place;
    this.moved = moved;
    this.panels = [];
    this.curves = new Map();
    this.near = null; // values that runs are near to: those on which the sliders last came to rest
    this.version = 0;
  }

  show(model, inputs) {
    this.model = model;
    this.near = null;
    this.curves.clear();
    this.panels = inputs.map((input) => this.#panel(input));
    this.place.replaceChildren(...this.panels.map((panel) => panel.figure));
  }

  get inputs() {
    return this.panels.map((panel) => panel.input.name);
  }

  // New curves of some inputs; the others keep theirs.
  take(slices) {
    for (const slice of slices) this.curves.set(slice.input, slice);
  }

  draw({ values, output, predictions, settled = true }) {
    if (settled || !this.near) [this.near, this.version] = [values, this.version + 1];
    const here = predictions[output], seen = this.model.output(output);
    const heights = this.#heights(output, seen);
    const y = linear(...heights);
    const width = this.place.clientWidth ? this.panels[0].canvas.clientWidth : 0;
    if (!width) return;
    for (const panel of this.panels) this.#draw(panel, { values, output, here, y, width });
  }

  // Ends of the upright axis: runs and means, and as much of the bands as is not far beyond.
  #heights(output, seen) {
    const means = [], ends = [];
    for (const { outputs } of this.curves.values()) {
      if (!outputs[output]) continue;
      means.push(...outputs[output].mean);
      ends.push(...outputs[output].lower, ...outputs[output].upper);
    }
    const [low, high] = padded([...seen.range, ...means], 0), half = 0.25 * (high - low);
    const [least, most] = padded([low, high, ...ends.map((v) => Math.min(high + half, Math.max(low - half, v)))], 0.02);
    const step = (seen.range[1] - seen.range[0]) / 16; // so that the axis does not tremble
    return [Math.floor(least / step) * step, Math.ceil(most / step) * step];
  }

  #draw({ picture, input, canvas }, { values, output, here, y, width }) {
    const slice = this.curves.get(input.name), curve = slice?.outputs[output];
    if (!curve) return;
    const category = input.kind === "categorical", at = this.model.position(input, values[input.name]);
    const along = category ? slice.values.map((_, i) => i) : slice.values;
    const x = category ? input.scale : scaleOf(input, Math.min(along[0], at), Math.max(along.at(-1), at));
    this.#background(picture, input, { output, x, y, width });
    picture.inside(() => {
      if (category) {
        along.forEach((i) => picture.bar(i, cell(curve, i), { tint: i === at ? "signal" : "accent" }));
        return;
      }
      picture.band(along, curve.lower, curve.upper);
      picture.line(along, curve.mean);
      picture.upright(at, { dash: [3, 3] });
      picture.bar(at, here, { tint: "signal" });
    });
    canvas.dataset.drawn = String(along.length);
  }

  // Axes and runs, painted anew only when something about them has changed.
  #background(picture, input, { output, x, y, width }) {
    picture.begin(width, HEIGHT);
    const left = Math.ceil(picture.room(y.ticks(4).map(y.text))) + 10;
    picture.frame(x, y, { left: Math.max(34, left), right: 10, top: 6, bottom: 22 });
    const key = [output, width, x.low, x.high, y.low, y.high, colour("ink"), this.version].join(" ");
    picture.kept(key, () => {
      picture.axes();
      const opacity = this.model.nearness(this.near, [input.name]).map((near) => 0.06 + 0.6 * near);
      const runs = this.model.runs[input.name].map((v) => (v === null ? null : this.model.position(input, v)));
      picture.inside(() => picture.dots(spread(runs, input.kind === "categorical"), this.model.runs[output], opacity));
    });
  }

  // Say in words what the pictures show, for who cannot see them.
  describe({ values, output }) {
    for (const { input, canvas } of this.panels) {
      const curve = this.curves.get(input.name)?.outputs[output];
      if (!curve) continue;
      const [first, last] = [curve.mean[0], curve.mean.at(-1)];
      const [low, high] = [Math.min(...curve.mean), Math.max(...curve.mean)];
      const words = `${output} along ${input.label}: from ${number(first)} to ${number(last)}, between ${number(low)} and ${number(high)}; here ${input.name} is ${say(values[input.name])}`;
      canvas.setAttribute("aria-label", words);
    }
  }

  #panel(input) {
    const canvas = element("canvas", { class: "picture", role: "img", "aria-label": input.label });
    const figure = element("figure", { class: "small" }, element("figcaption", { title: input.label }, input.label), canvas);
    const panel = { input, canvas, figure, picture: new Picture(canvas) };
    const follow = (event) => {
      const { box, scales } = panel.picture;
      if (!box) return;
      const u = (event.offsetX - box.left) / (box.right - box.left);
      this.moved(input.name, valueAt(input, scales.x, Math.max(0, Math.min(1, u))), event.timeStamp);
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      follow(event);
    });
    canvas.addEventListener("pointermove", (event) => canvas.hasPointerCapture(event.pointerId) && follow(event));
    return panel;
  }
}

// The value of an input at a place of a scale, with a sensible number of digits.
export function valueAt(input, scale, u) {
  const value = scale.value(u);
  if (input.kind === "categorical") return input.choices[value];
  return input.kind === "integer" ? Math.round(value) : Number(value.toPrecision(4));
}

const cell = (curve, i) => ({ mean: curve.mean[i], lower: curve.lower[i], upper: curve.upper[i] });
const say = (value) => (typeof value === "number" ? number(value) : String(value));

// Runs of choices beside one another rather than on one line.
export const spread = (places, category) =>
  category ? places.map((p, i) => (p === null ? null : p + 0.36 * (((i * 0.618034) % 1) - 0.5))) : places;
