// Where the surrogate is unsure: widths of intervals along each input, and the widest points.
import { at, element } from "./element.js";
import { number, percent, precise } from "./numbers.js";
import { Picture } from "./picture.js";
import { fillPoints } from "./points.js";
import { linear, padded, scaleOf } from "./scales.js";
import { addressOf, ask } from "./service.js";

const HEIGHT = 140;

export class Doubt {
  constructor(state, { go }) {
    Object.assign(this, { state, go });
    this.found = new Map(); // by model and level
    this.panels = [];
  }

  show() {
    this.panels = [];
    at("doubt-pictures").replaceChildren();
  }

  async enter() {
    const { model, level } = this.state, key = model.name + " " + level;
    if (!this.found.has(key)) {
      at("doubt-words").textContent = "Computing …";
      const { outputs } = await ask(addressOf(model.name, "doubt"), { level });
      this.found.set(key, outputs);
    }
    if (model === this.state.model && level === this.state.level) this.#fill();
  }

  follow() {
    this.#say();
  }

  redraw() {
    this.panels.forEach((panel) => this.#draw(panel));
  }

  get #here() {
    const { model, level, output } = this.state;
    return this.found.get(model.name + " " + level)?.[output];
  }

  #fill() {
    const { model, output } = this.state, found = this.#here;
    this.panels = found.profiles.map((profile) => panelOf(model.input(profile.input), profile));
    at("doubt-pictures").replaceChildren(...this.panels.map((panel) => panel.figure));
    this.redraw();
    this.#say();
    fillPoints(at("doubt-points"), model, found.widest, {
      outputs: [output], go: this.go,
      more: [["Width", (point) => precise(point.predictions[output].upper - point.predictions[output].lower)]],
    });
  }

  // How sure it is at the present point, against everywhere.
  #say() {
    const found = this.#here, cell = this.state.predictions?.[this.state.output];
    if (!found || !cell) return;
    const width = cell.upper - cell.lower, ratio = width / found.typical_width;
    const share = percent(found.typical_width / found.range);
    at("doubt-words").textContent =
      `Over the ranges of the inputs the ${percent(this.state.level)} interval of ${this.state.output} is typically ${number(found.typical_width, 3)} wide, ${share} of the range of the runs. Where the sliders are it is ${number(width, 3)}, ${number(ratio, 2)} times that.`;
  }

  #draw({ input, profile, canvas, picture }) {
    const width = canvas.clientWidth, found = this.#here;
    if (!width || !found) return;
    const category = input.kind === "categorical";
    const along = category ? profile.values.map((v) => input.choices.indexOf(v)) : profile.values;
    const all = found.profiles.flatMap((each) => each.width);
    const y = linear(0, padded([0, found.typical_width, ...all])[1]);
    picture.begin(width, HEIGHT);
    const left = Math.ceil(picture.room(y.ticks(3).map(y.text))) + 10;
    picture.frame(category ? input.scale : scaleOf(input), y, { left: Math.max(34, left), right: 10, top: 6, bottom: 22 });
    picture.axes();
    picture.level(found.typical_width);
    picture.inside(() => {
      if (!category) picture.line(along, profile.width);
      picture.dots(along, profile.width, along.map(() => 1), { tint: "accent", radius: category ? 4 : 2.4 });
    });
    canvas.dataset.drawn = String(along.length);
    const low = Math.min(...profile.width), high = Math.max(...profile.width);
    canvas.setAttribute("aria-label", `Mean width along ${input.label}: between ${number(low, 3)} and ${number(high, 3)}`);
  }
}

function panelOf(input, profile) {
  const canvas = element("canvas", { class: "picture still", role: "img", "aria-label": input.label });
  const figure = element("figure", { class: "small" }, element("figcaption", { title: input.label }, input.label), canvas);
  return { input, profile, canvas, figure, picture: new Picture(canvas) };
}
