// A map of two inputs: the mean of an output, or how wide its interval is.
import { contour } from "./contours.js";
import { at, fill } from "./element.js";
import { Latest } from "./follow.js";
import { interval, number } from "./numbers.js";
import { colour, Picture } from "./picture.js";
import { linear, scaleOf } from "./scales.js";
import { addressOf, ask } from "./service.js";
import { spread, valueAt } from "./slices.js";
import { painted } from "./tint.js";

const FINE = 41;
const PIXELS = 160; // of the painted field, each way
const WORDS = {
  mean: "over two inputs, the others held where their sliders are. Ring: the present point. Dots: runs, clearer the nearer they are in the other inputs. Click to go there.",
  width: "over two inputs: how wide its interval is. Where there are few runs it grows. Ring: the present point. Click to go there.",
};

export class PlaneView {
  constructor(state, { moved, saved, complain }) {
    Object.assign(this, { state, moved, saved, complain });
    this.picture = new Picture(at("map"));
    this.latest = new Latest((points) => this.#load(points));
    this.field = null;
    this.fine = "";
    for (const [id, key] of [["map-x", "x"], ["map-y", "y"]]) {
      at(id).addEventListener("change", () => this.#choose(key, at(id).value));
    }
    at("map-shown").addEventListener("change", () => {
      state.show = at("map-shown").value;
      this.redraw();
      this.saved();
    });
    this.#listen();
  }

  show(said) {
    const { state } = this, names = state.model.inputs.map((input) => input.name);
    const pick = (name, otherwise) => (names.includes(name) ? name : otherwise);
    state.x = pick(said.x, names[0]);
    state.y = pick(said.y, names.find((name) => name !== state.x));
    if (state.x === state.y) state.y = names.find((name) => name !== state.x);
    state.show = said.show === "width" ? "width" : "mean";
    for (const [id, name] of [["map-x", state.x], ["map-y", state.y]]) {
      fill(at(id), state.model.inputs.map((input) => [input.name, input.label]), name);
    }
    at("map-shown").value = state.show;
    at("tab-map").hidden = names.length < 2;
    this.field = null;
  }

  enter() {
    if (!this.state.y) return undefined;
    return this.latest.push(FINE);
  }

  follow({ moved, settled, pace }) {
    const { state } = this;
    if (!state.y) return undefined;
    if (moved === state.x || moved === state.y) return this.redraw();
    if (settled && this.fine === this.#key()) return this.redraw();
    return this.latest.push(settled ? FINE : Math.max(7, Math.min(21, Math.floor(Math.sqrt(pace.rows)))));
  }

  // What a field depends on: all but the place on it.
  #key() {
    const { model, values, output, level, x, y } = this.state;
    return JSON.stringify([model.name, output, level, x, y, { ...values, [x]: 0, [y]: 0 }]);
  }

  async #load(points) {
    const { model, values, output, level, x, y } = this.state, key = this.#key();
    const answer = await ask(addressOf(model.name, "map"), { at: values, x, y, output, level, points });
    if (model !== this.state.model) return;
    this.field = { ...answer, names: [x, y], width: answer.mean.map((_, i) => answer.upper[i] - answer.lower[i]) };
    this.fine = points === FINE ? key : "";
    this.redraw();
  }

  #choose(key, name) {
    const { state } = this, other = key === "x" ? "y" : "x";
    if (state[other] === name) {
      state[other] = state[key];
      at("map-" + other).value = state[other];
    }
    state[key] = name;
    this.enter().catch(this.complain);
    this.saved();
  }

  // -- drawing ------------------------------------------------------------------------------------

  redraw() {
    const { field, picture, state } = this, width = picture.canvas.parentElement.clientWidth;
    at("map-words").textContent = WORDS[state.show];
    if (!field || !width || field.names.join() !== [state.x, state.y].join()) return;
    const [x, y] = [state.model.input(state.x), state.model.input(state.y)];
    const axes = [axisOf(x, field.x), axisOf(y, field.y)];
    picture.begin(width, Math.round(Math.max(280, Math.min(480, 0.62 * width))));
    const values = field[state.show], shown = linear(...ends(values));
    const left = Math.min(110, Math.ceil(picture.room(axes[1].ticks(6).map(axes[1].text))) + 12);
    const right = Math.ceil(picture.room(shown.ticks(7).map(shown.text))) + 42;
    picture.frame(axes[0], axes[1], { left: Math.max(36, left), right, top: 24, bottom: 42 });
    this.#paint(axes, values, shown);
    picture.axes({ grid: false });
    picture.key(shown, painted(Float64Array.from({ length: 128 }, (_, i) => 127 - i), 1, 128, [0, 127], state.show));
    this.#titles(x, y);
    this.#points();
    this.#say();
    picture.canvas.dataset.drawn = String(values.length);
  }

  #paint(axes, values, shown) {
    const { field, picture, state } = this, { pen, box } = picture;
    const numbers = axes.every((axis) => axis.kind !== "choices");
    const dense = resampled(values, field, axes);
    const canvas = painted(dense, PIXELS, PIXELS, [shown.low, shown.high], state.show);
    pen.imageSmoothingEnabled = numbers;
    pen.drawImage(canvas, box.left, box.top, box.right - box.left, box.bottom - box.top);
    if (!numbers) return;
    pen.lineWidth = 1;
    pen.strokeStyle = "rgba(0, 0, 0, .45)";
    pen.beginPath();
    const sx = (box.right - box.left) / (PIXELS - 1), sy = (box.bottom - box.top) / (PIXELS - 1);
    for (const level of shown.ticks(7)) {
      for (const [a, b, c, d] of contour(dense, PIXELS, PIXELS, level)) {
        pen.moveTo(box.left + a * sx, box.top + b * sy);
        pen.lineTo(box.left + c * sx, box.top + d * sy);
      }
    }
    pen.stroke();
  }

  #titles(x, y) {
    const { pen, box, width } = this.picture;
    pen.fillStyle = colour("ink");
    pen.textBaseline = "alphabetic";
    pen.textAlign = "left";
    pen.fillText(y.label, 0, 14, width);
    pen.textAlign = "right";
    pen.fillText(x.label, box.right, this.picture.height - 6, box.right);
  }

  #points() {
    const { picture, state } = this, { model } = state, { pen } = picture;
    const [x, y] = [model.input(state.x), model.input(state.y)];
    const runs = (input) => model.runs[input.name].map((v) => (v === null ? null : model.position(input, v)));
    const near = model.nearness(state.values, [state.x, state.y]);
    const [across, up] = [x, y].map((input) => spread(runs(input), input.kind === "categorical"));
    picture.inside(() => {
      pen.lineWidth = 1;
      for (let i = 0; i < near.length; i++) {
        if (across[i] === null || up[i] === null) continue;
        pen.globalAlpha = 0.12 + 0.8 * near[i];
        dot(pen, picture.x(across[i]), picture.y(up[i]), 2.6, "#111418", "#ffffff");
      }
      pen.globalAlpha = 1;
      const [px, py] = [model.position(x, state.values[state.x]), model.position(y, state.values[state.y])];
      ring(pen, picture.x(px), picture.y(py));
    });
  }

  // The prediction at the present point, or at the place pointed at, in words.
  #say(place = null) {
    const { field, state } = this, { model } = state;
    const chosen = place ?? { [state.x]: state.values[state.x], [state.y]: state.values[state.y] };
    const words = [state.x, state.y].map((name) => `${name} ${typeof chosen[name] === "number" ? number(chosen[name]) : chosen[name]}`);
    const cell = place ? nearest(field, model, state, place) : state.predictions?.[state.output];
    if (!cell) return;
    const said = interval(cell), text = `At ${words.join(", ")}: ${said.mean} (${said.ends})`;
    at("map-here").textContent = text;
    if (!place) {
      const shown = field[state.show];
      const [low, high] = ends(shown);
      this.picture.canvas.setAttribute("aria-label", `${state.show === "mean" ? "Mean" : "Width of the interval"} of ${state.output} over ${state.x} and ${state.y}, from ${number(low)} to ${number(high)}. ${text}`);
    }
  }

  #listen() {
    const { canvas } = this.picture;
    const place = (event) => {
      const { box, scales } = this.picture, { model, x, y } = this.state;
      if (!box || !this.field) return null;
      const clamp = (u) => Math.max(0, Math.min(1, u));
      const across = clamp((event.offsetX - box.left) / (box.right - box.left));
      const up = clamp((box.bottom - event.offsetY) / (box.bottom - box.top));
      return { [x]: valueAt(model.input(x), scales.x, across), [y]: valueAt(model.input(y), scales.y, up) };
    };
    const go = (event) => {
      const found = place(event);
      if (found) for (const [name, value] of Object.entries(found)) this.moved(name, value, event.timeStamp);
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      go(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) go(event);
      else if (place(event)) this.#say(place(event));
    });
    canvas.addEventListener("pointerleave", () => this.field && this.#say());
  }
}

const axisOf = (input, values) =>
  input.kind === "categorical" ? input.scale : scaleOf(input, values[0], values.at(-1));

function ends(values) {
  const known = values.filter((v) => Number.isFinite(v));
  return known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
}

// A field on a fine even grid, the first row at the top; between choices nothing is interpolated.
function resampled(values, field, [x, y]) {
  const columns = weights(field.x, x, PIXELS), rows = weights(field.y, y, PIXELS).reverse();
  const n = field.x.length, found = new Float64Array(PIXELS * PIXELS);
  rows.forEach(([r, s], i) => {
    const low = r * n, high = Math.min(r + 1, field.y.length - 1) * n;
    columns.forEach(([c, t], j) => {
      const d = Math.min(c + 1, n - 1);
      const below = values[low + c] * (1 - t) + values[low + d] * t;
      found[i * PIXELS + j] = s ? below * (1 - s) + (values[high + c] * (1 - t) + values[high + d] * t) * s : below;
    });
  });
  return found;
}

// For each of n even places the grid value before it, and how far it is on the way to the next.
function weights(values, axis, n) {
  if (axis.kind === "choices") return Array.from({ length: n }, (_, i) => [axis.value((i + 0.5) / n), 0]);
  const units = values.map(axis.unit);
  let k = 0;
  return Array.from({ length: n }, (_, i) => {
    const u = i / (n - 1);
    while (k < units.length - 2 && units[k + 1] < u) k += 1;
    return [k, Math.max(0, Math.min(1, (u - units[k]) / (units[k + 1] - units[k])))];
  });
}

// The predicted cell of a field nearest to a place.
function nearest(field, model, state, place) {
  const at = (name, values) => {
    const input = model.input(name);
    if (input.kind === "categorical") return values.indexOf(place[name]);
    const unit = input.scale.unit;
    return values.reduce((best, v, i) => (Math.abs(unit(v) - unit(place[name])) < Math.abs(unit(values[best]) - unit(place[name])) ? i : best), 0);
  };
  const i = at(state.y, field.y) * field.x.length + at(state.x, field.x);
  return { mean: field.mean[i], lower: field.lower[i], upper: field.upper[i] };
}

function dot(pen, x, y, radius, inner, outer) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fillStyle = inner;
  pen.fill();
  pen.strokeStyle = outer;
  pen.stroke();
}

function ring(pen, x, y) {
  for (const [width, tint] of [[5, "#ffffff"], [2.4, "#b8500a"]]) {
    pen.lineWidth = width;
    pen.strokeStyle = tint;
    pen.beginPath();
    pen.arc(x, y, 8, 0, 2 * Math.PI);
    pen.stroke();
  }
}
