// An operator of fields: a start, its rollout as an animation, and how far that can be believed.
import * as address from "./address.js";
import { at, debounced, element, fill } from "./element.js";
import { Latest } from "./follow.js";
import { fixed, number, precise, rounded } from "./numbers.js";
import { Picture } from "./picture.js";
import { linear, padded } from "./scales.js";
import { addressOf, askArrays } from "./service.js";
import { nested, startField, STARTS } from "./starts.js";
import { painted } from "./tint.js";

const FRAME = 80; // milliseconds between two times that play
const BOTH = 2; // deviations that bands reach
const KEYS = ["start", "size", "detail", "seed", "steps", "samples"];

export class Fields {
  constructor({ complain }) {
    this.complain = complain;
    this.latest = new Latest(() => this.#load());
    this.time = 0;
    this.playing = 0;
    at("time").addEventListener("input", () => this.#show(Number(at("time").value)));
    at("play").addEventListener("click", () => (this.playing ? this.#stop() : this.#play()));
    at("channel").addEventListener("change", () => this.#arrange());
    this.settle = debounced(() => this.#save(), 300);
  }

  // Show an operator, with what the address says of it.
  async show(model, said) {
    this.#stop();
    this.model = model;
    this.answer = null;
    this.dims = model.grid.shape.length;
    this.steady = !("dt" in model);
    const known = (key, otherwise) => (Number.isFinite(Number(said[key])) && said[key] ? Number(said[key]) : otherwise);
    this.wish = {
      start: STARTS.some(([kind]) => kind === said.start) ? said.start : "random",
      size: known("size", 1), detail: known("detail", this.dims === 1 ? 4 : 3), seed: known("seed", 1),
      steps: known("steps", 40), samples: known("samples", 8),
    };
    this.parameters = Object.fromEntries(model.parameters.map((parameter) => {
      const { lower, upper } = range(parameter), given = Number(said.inputs?.[parameter.name] || NaN);
      return [parameter.name, Number.isFinite(given) ? given : rounded((lower + upper) / 2, 4)];
    }));
    this.#controls();
    fill(at("channel"), model.outputs.map((name, k) => [k, name]));
    at("channel-chooser").hidden = model.outputs.length < 2;
    at("player").hidden = this.steady;
    at("belief").hidden = this.steady;
    await this.latest.push();
  }

  redraw() {
    if (this.answer) this.#show(this.time);
  }

  hide() {
    this.#stop();
  }

  // -- controls -----------------------------------------------------------------------------------

  #controls() {
    const { model, wish } = this;
    const kinds = element("select", { id: "start-kind" });
    fill(kinds, STARTS, wish.start);
    kinds.addEventListener("change", () => this.#wish("start", kinds.value));
    at("start").replaceChildren(
      element("div", { class: "input choice" }, element("label", { for: "start-kind" }, "Shape"), kinds),
      this.#slider("Size, of what it was trained on", "size", 0.1, 2, 0.05),
      this.#slider("Detail", "detail", 1, 10, 1),
      this.#slider("Seed", "seed", 1, 50, 1),
    );
    at("parameters-title").hidden = !model.parameters.length;
    at("parameters").replaceChildren(...model.parameters.map((parameter, k) => this.#parameter(parameter, k)));
    at("rollout-title").hidden = this.steady;
    const samples = model.stochastic ? [this.#slider("Samples", "samples", 2, 32, 1)] : [];
    at("rollout-size").replaceChildren(...(this.steady ? [] : [this.#slider("Steps", "steps", 5, 200, 5), ...samples]));
  }

  #slider(label, key, min, max, step) {
    return control(label, "wish-" + key, min, max, step, this.wish[key], (value) => this.#wish(key, value));
  }

  #parameter(parameter, k) {
    const { lower, upper } = range(parameter), step = rounded((upper - lower) / 200, 3) || "any";
    return control(parameter.name, "parameter-" + k, lower, upper, step, this.parameters[parameter.name], (value) => {
      this.parameters[parameter.name] = rounded(value, 4);
      this.#changed();
    });
  }

  #wish(key, value) {
    this.wish[key] = value;
    this.#changed();
  }

  #changed() {
    this.latest.push().catch(this.complain);
    this.settle();
  }

  #save() {
    const said = Object.fromEntries(KEYS.map((key) => [key, this.wish[key]]));
    address.write({ model: this.model.name, ...said }, this.parameters);
  }

  // -- rollouts -----------------------------------------------------------------------------------

  async #load() {
    const { model, wish, parameters } = this, { shape } = model.grid;
    const start = model.fields.map((scale, channel) =>
      startField({ shape, kind: wish.start, detail: wish.detail, seed: wish.seed + 100 * channel }, scale, wish.size));
    const channels = start.map((values) => nested(values, shape));
    const fields = model.history > 1 ? Array(model.history).fill(channels) : channels;
    const what = this.steady ? "solution" : `rollout?steps=${wish.steps}&samples=${model.stochastic ? wish.samples : 1}`;
    try {
      const answer = await askArrays(addressOf(model.name, what), { fields, ...(model.parameters.length && { parameters }) });
      if (model !== this.model) return;
      this.answer = { ...this.#read(answer), start };
      at("trouble").hidden = true;
      this.#arrange();
    } catch (error) {
      this.complain(error);
    }
  }

  // Times, mean and spread of the samples by time and channel, and what is known of the error.
  #read({ fields, times, test_error: error, reliable_until: until }) {
    const { outputs, grid } = this.model, points = grid.shape.reduce((a, b) => a * b, 1);
    const samples = this.steady ? 1 : fields.shape[1], all = this.steady ? 1 : fields.shape[2];
    const moments = Array.from({ length: all }, (_, t) => outputs.map((_, c) => {
      const at_ = (s) => ((s * all + t) * outputs.length + c) * points;
      return moment(Array.from({ length: samples }, (_, s) => fields.values.subarray(at_(s), at_(s) + points)));
    }));
    return {
      times: times ? Array.from(times.values) : [0],
      mean: moments.map((each) => each.map(({ mean }) => mean)),
      sd: samples > 1 ? moments.map((each) => each.map(({ sd }) => sd)) : null,
      error: error && error.values.some(Number.isFinite) ? [0, ...error.values] : null,
      horizon: until ? until.values[0] : null,
    };
  }

  get #channel() {
    return Number(at("channel").value) || 0;
  }

  // Make room for the pictures of the chosen field, and find the ends of its scales.
  #arrange() {
    const { answer, dims, steady } = this, channel = this.#channel;
    const flat = (fields) => fields.map((each) => each[channel]);
    this.mean = flat(answer.mean);
    this.sd = answer.sd ? flat(answer.sd) : null;
    this.ends = padded(this.mean.flatMap((values) => extremes(values)), 0.02);
    this.spread = this.sd ? [0, Math.max(...this.sd.map((values) => extremes(values)[1])) || 1] : null;
    const names = [...(steady ? ["given"] : []), "mean", ...(this.sd ? ["spread"] : [])];
    if (!steady && dims === 1) names.push("history", ...(this.sd ? ["doubt"] : []));
    const plain = steady ? { mean: "What it gives" } : this.sd ? {} : { mean: "Rollout" };
    this.panels = names.map((name) => panelOf(name, { ...TITLES, ...plain }[name]));
    at("field-pictures").replaceChildren(...this.panels.map((panel) => panel.figure));
    at("time").max = answer.times.length - 1;
    this.#belief();
    this.#show(Math.min(this.time, answer.times.length - 1));
  }

  #show(time) {
    this.time = time;
    const { answer } = this;
    if (!answer) return;
    const words = this.#when(time);
    at("time").value = time;
    at("time").setAttribute("aria-valuetext", words);
    at("time-text").textContent = words;
    for (const panel of this.panels) this.#draw(panel);
    this.#belief();
    if (!this.playing) at("field-words").textContent = this.#words();
  }

  #when(time) {
    const { times, horizon } = this.answer, decimals = Math.max(0, 2 - Math.floor(Math.log10(times.at(-1) || 1)));
    const beyond = horizon !== null && horizon !== undefined && times[time] > horizon ? ", beyond the reliable horizon" : "";
    return fixed(times[time], Math.min(6, decimals)) + beyond;
  }

  #words() {
    const { model, mean, time } = this, [low, high] = extremes(mean[time]);
    const name = model.outputs[this.#channel];
    return this.steady
      ? `${name} for the given ${model.channels.join(", ")}: from ${number(low)} to ${number(high)}.`
      : `${name} at time ${this.#when(time)}: from ${number(low)} to ${number(high)}.`;
  }

  // -- drawing ------------------------------------------------------------------------------------

  #draw({ name, title, canvas, picture }) {
    const width = canvas.clientWidth, { grid } = this.model;
    if (!width) return;
    const { time, mean, sd } = this;
    if (this.dims === 1 && ["mean", "spread", "given"].includes(name)) this.#line(name, picture, width);
    else if (name === "history") this.#image(picture, width, mean, this.ends, "mean", true);
    else if (name === "doubt") this.#image(picture, width, sd, this.spread, "width", true);
    else {
      const values = { mean: mean[time], spread: sd?.[time], given: Float64Array.from(this.answer.start[0]) }[name];
      const ends = name === "spread" ? this.spread : name === "given" ? padded(extremes(values), 0) : this.ends;
      this.#image(picture, width, cut(values, grid.shape), ends, name === "spread" ? "width" : "mean", false);
    }
    const [low, high] = name === "spread" || name === "doubt" ? this.spread : this.ends;
    canvas.setAttribute("aria-label", `${title}, on a scale from ${number(low)} to ${number(high)}`);
    canvas.dataset.drawn = "true";
  }

  #line(name, picture, width) {
    const { grid } = this.model, { time, mean, sd } = this, x = places(grid, 0);
    const given = name === "given" ? Float64Array.from(this.answer.start[0]) : null;
    const values = given ?? (name === "spread" ? sd[time] : mean[time]);
    const reach = this.sd ? [this.ends[0] - BOTH * this.spread[1], this.ends[1] + BOTH * this.spread[1]] : this.ends;
    const y = linear(...(given ? padded(extremes(given)) : name === "spread" ? padded(this.spread) : limited(reach, this.ends)));
    picture.begin(width, 220);
    const left = Math.ceil(picture.room(y.ticks(5).map(y.text))) + 10;
    picture.frame(linear(grid.lower[0], grid.upper[0]), y, { left: Math.max(36, left), right: 10, top: 9, bottom: 22 });
    picture.axes();
    picture.inside(() => {
      if (name === "mean" && sd) picture.band(x, Array.from(values, (v, i) => v - BOTH * sd[time][i]), Array.from(values, (v, i) => v + BOTH * sd[time][i]));
      picture.line(x, Array.from(values), name === "spread" ? { tint: "signal" } : {});
    });
  }

  // Rows of values as an image: up is later where rows are times.
  #image(picture, width, rows, ends, tint, overTime) {
    const { grid } = this.model, { times, horizon } = this.answer, n = rows[0].length;
    const height = overTime ? 240 : Math.round(Math.min(340, (width * rows.length) / n));
    const y = overTime ? linear(times[0], times.at(-1)) : linear(grid.lower[0], grid.upper[0]);
    const across = overTime ? linear(grid.lower[0], grid.upper[0]) : linear(grid.lower[1], grid.upper[1]);
    const shown = linear(...ends);
    picture.begin(width, height);
    const left = Math.ceil(picture.room(y.ticks(5).map(y.text))) + 10, right = Math.ceil(picture.room(shown.ticks(5).map(shown.text))) + 36;
    picture.frame(across, y, { left: Math.max(30, left), right, top: 9, bottom: 22 });
    const { pen, box } = picture, values = new Float64Array(rows.length * n);
    rows.forEach((row, i) => values.set(row, (rows.length - 1 - i) * n));
    pen.imageSmoothingEnabled = false;
    pen.drawImage(painted(values, n, rows.length, ends, tint), box.left, box.top, box.right - box.left, box.bottom - box.top);
    picture.axes({ grid: false });
    picture.key(shown, painted(Float64Array.from({ length: 64 }, (_, i) => 63 - i), 1, 64, [0, 63], tint));
    if (!overTime) return;
    picture.inside(() => {
      picture.level(times[this.time], { tint: "signal", dash: [] });
      if (horizon !== null && horizon !== undefined && horizon < times.at(-1)) picture.level(horizon, { tint: "paper" });
    });
  }

  // What is known of the error over time: the spread of the samples with their reliable horizon, and
  // the error on test runs where it was measured.
  #belief() {
    const { answer, model, mean, sd, time } = this, { times, horizon, error } = answer, end = times.at(-1);
    const relative = sd?.map((values, k) => rms(values) / (rms(mean[k]) || 1));
    const never = horizon === null || horizon >= end;
    const parts = [];
    if (sd) {
      parts.push(`Blue: the deviation of ${this.wish.samples} rollouts from the same start, in sizes of their mean.`);
      parts.push(never ? "They agree to the end." : `They agree until time ${precise(horizon)}, the upright line: from there on the mean is no forecast.`);
    }
    if (error) parts.push("Dashed: the normalised error on test runs, measured when it was trained.");
    if (!parts.length) parts.push("This operator gives the same rollout every time and has no record of its error, so nothing says for how long it is right.");
    at("belief-words").textContent = parts.join(" ");
    const canvas = at("belief-picture"), curves = [relative, error].filter(Boolean);
    canvas.hidden = !curves.length;
    const width = canvas.clientWidth;
    if (!curves.length || !width) return;
    this.beliefPicture ??= new Picture(canvas);
    const picture = this.beliefPicture;
    const y = linear(0, Math.min(2, padded([0, ...curves.flat()])[1]));
    picture.begin(width, 180);
    picture.frame(linear(times[0], end), y, { left: 44, right: 12, top: 9, bottom: 22 });
    picture.axes();
    picture.inside(() => {
      if (relative) picture.line(times, relative);
      if (error) picture.line(known(times, error), known(error, error), { tint: "muted", dash: [6, 4] });
      picture.upright(times[time], { dash: [3, 3] });
      if (!never) picture.upright(horizon, { tint: "ink" });
    });
    const last = curves[0].filter((v) => Number.isFinite(v)).at(-1);
    canvas.setAttribute("aria-label", `Error estimate of ${model.name} over time, ${number(last, 2)} at the end` + (never ? "" : `; reliable horizon ${precise(horizon)}`));
  }

  // -- playing ------------------------------------------------------------------------------------

  #play() {
    const last = this.answer.times.length - 1;
    if (this.time >= last) this.time = -1;
    at("play").textContent = "Pause";
    this.playing = setInterval(() => {
      if (this.time >= last) this.#stop();
      else this.#show(this.time + 1);
    }, FRAME);
  }

  #stop() {
    clearInterval(this.playing);
    this.playing = 0;
    at("play").textContent = "Play";
    if (this.answer) at("field-words").textContent = this.#words();
  }
}

const TITLES = {
  given: "What is given", mean: "Mean of the rollouts", spread: "Spread of the rollouts (standard deviation)",
  history: "All times, upwards", doubt: "Spread at all times",
};

function panelOf(name, title) {
  const canvas = element("canvas", { class: "picture still", role: "img", "aria-label": title });
  return { name, title, canvas, picture: new Picture(canvas), figure: element("figure", { class: "small" }, element("figcaption", {}, title), canvas) };
}

function control(label, id, min, max, step, value, changed) {
  const shown = element("output", { for: id, class: "shown" }, number(value));
  const slider = element("input", { id, type: "range", min, max, step });
  slider.value = value;
  slider.addEventListener("input", () => {
    shown.textContent = number(slider.valueAsNumber);
    changed(slider.valueAsNumber);
  });
  return element("div", { class: "input" }, element("label", { for: id, title: label }, label), shown, slider);
}

const range = ({ lower, upper }) => ({ lower: rounded(lower, 3), upper: rounded(upper, 3) });

function extremes(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return [low, high];
}

const rms = (values) => Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length);

// Mean and standard deviation of some fields, point by point.
function moment(fields) {
  const n = fields[0].length, mean = new Float64Array(n), sd = new Float64Array(n);
  for (const field of fields) for (let i = 0; i < n; i++) mean[i] += field[i] / fields.length;
  if (fields.length < 2) return { mean, sd };
  for (const field of fields) for (let i = 0; i < n; i++) sd[i] += (field[i] - mean[i]) ** 2 / (fields.length - 1);
  return { mean, sd: sd.map(Math.sqrt) };
}

const known = (values, measured) => values.filter((_, i) => Number.isFinite(measured[i]));

// Ends that hold a reach, but no more than half the means' span beyond them.
function limited([low, high], [a, b]) {
  const half = 0.5 * (b - a);
  return [Math.max(low, a - half), Math.min(high, b + half)];
}

const cut = (values, [rows, columns]) => Array.from({ length: rows }, (_, i) => values.subarray(i * columns, (i + 1) * columns));

function places({ shape, lower, upper, placement }, k) {
  const inner = placement === "interior", h = (upper[k] - lower[k]) / (shape[k] + (inner ? 1 : 0));
  const offset = { periodic: 0, cells: 0.5, interior: 1 }[placement] ?? 0;
  return Array.from({ length: shape[k] }, (_, i) => lower[k] + (i + offset) * h);
}
