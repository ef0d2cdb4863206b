// The target finder: which inputs give a value of an output, or its least or most, within limits.
import { at, element, fill } from "./element.js";
import { likely, number, percent } from "./numbers.js";
import { fillPoints } from "./points.js";
import { addressOf, ask } from "./service.js";

export class Finder {
  constructor(state, { go, complain }) {
    Object.assign(this, { state, go, complain });
    at("finder").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#find();
    });
    at("finder-goal").addEventListener("change", () => this.#adapt());
    at("finder-add").addEventListener("click", () => this.#addLimit());
  }

  show() {
    const { model } = this.state;
    fill(at("finder-output"), model.outputs.map((output) => [output.name, output.name]), this.state.output);
    at("finder-limits").replaceChildren();
    at("finder-add").hidden = false;
    at("finder-kept").replaceChildren(...model.inputs.map((input, k) => {
      const id = "kept-" + k;
      return element("label", { for: id }, element("input", { type: "checkbox", id, value: input.name }), input.label);
    }));
    at("finder-words").textContent = "";
    at("finder-scroll").hidden = true;
    this.#adapt();
    this.untouched = true;
  }

  enter() {
    if (this.untouched) {
      at("finder-output").value = this.state.output;
      at("finder-target").value = "";
    }
    this.#suggest();
  }

  // A value in the middle of the runs, for an empty field.
  #suggest() {
    const [low, high] = this.state.model.output(at("finder-output").value).range;
    at("finder-target").placeholder = `${number(low, 3)} … ${number(high, 3)}`;
  }

  #adapt() {
    const target = at("finder-goal").value === "target";
    for (const part of document.querySelectorAll(".of-target")) part.hidden = !target;
    for (const part of document.querySelectorAll(".of-extreme")) part.hidden = target;
    at("finder-target").required = target;
  }

  #addLimit() {
    const { model } = this.state;
    const output = element("select", { "aria-label": "Output with a limit" });
    fill(output, model.outputs.map((each) => [each.name, each.name]), model.outputs.find((each) => each.name !== at("finder-output").value)?.name);
    const number_ = (name) => element("input", { type: "number", step: "any", "aria-label": name, placeholder: name });
    const row = element("div", { class: "controls-line limit" }, output, number_("at least"), number_("at most"));
    row.append(element("button", { type: "button", "aria-label": "Remove this limit", onclick: () => { row.remove(); at("finder-add").focus(); } }, "Remove"));
    at("finder-limits").append(row);
    output.focus();
  }

  get #constraints() {
    return [...document.querySelectorAll("#finder-limits .limit")].map((row) => {
      const [output, lower, upper] = row.children;
      const limit = (field) => (Number.isFinite(field.valueAsNumber) ? field.valueAsNumber : null);
      return { output: output.value, lower: limit(lower), upper: limit(upper) };
    }).filter((each) => each.lower !== null || each.upper !== null);
  }

  get #fixed() {
    const kept = [...document.querySelectorAll("#finder-kept input:checked")].map((box) => box.value);
    return Object.fromEntries(kept.map((name) => [name, this.state.values[name]]));
  }

  async #find() {
    this.untouched = false;
    const button = at("finder").querySelector('[type="submit"]');
    button.disabled = true;
    at("finder-words").textContent = "Searching …";
    try {
      await (at("finder-goal").value === "target" ? this.#invert() : this.#extreme());
    } catch (error) {
      at("finder-scroll").hidden = true;
      at("finder-words").textContent = sentence(error.message);
      if (!error.status) this.complain(error);
    }
    button.disabled = false;
  }

  // Inputs that give a value, several different ones.
  async #invert() {
    const { model, level } = this.state, output = at("finder-output").value;
    const target = at("finder-target").valueAsNumber, tolerance = at("finder-tolerance").valueAsNumber;
    const answer = await ask(addressOf(model.name, "invert"), {
      output, target, level, constraints: this.#constraints, fixed: this.#fixed,
      ...(Number.isFinite(tolerance) && tolerance > 0 && { tolerance }),
    });
    const reached = answer.points.filter((point) => point.reached).length;
    const within = `within ${number(answer.tolerance, 2)} of ${number(target)}`;
    const words = reached
      ? `${reached === 1 ? "One point is" : reached + " different points are"} predicted ${within}${this.#constraints.length ? " and within the limits" : ""}.`
      : `Nowhere is ${output} predicted ${within}${this.#constraints.length ? " within the limits" : ""}; this comes nearest.`;
    this.#list(answer.points, output, words, ["At least likely", (point) => likely(point.probability)]);
  }

  // The least or most of an output, with limits that hold with a probability.
  async #extreme() {
    const { model, level } = this.state, output = at("finder-output").value;
    const constraints = this.#constraints;
    const { points } = await ask(addressOf(model.name, "optimize"), {
      objective: { output, direction: at("finder-goal").value },
      constraints, fixed: this.#fixed, strategy: "best",
      probability: Number(at("finder-probability").value),
    });
    const described = await this.#described(points, level);
    const words = points[0].feasible < Number(at("finder-probability").value) - 0.15
      ? "The limits do not hold anywhere with that probability; this comes nearest."
      : "The best point, by the mean.";
    const more = constraints.length ? ["Limits hold", (point) => percent(point.feasible)] : null;
    this.#list(described, output, words, more);
  }

  // Points with intervals at the level of the page.
  async #described(points, level) {
    const { model } = this.state;
    return Promise.all(points.map(async (point) => {
      const answer = await ask(addressOf(model.name, "slices"), { at: point.inputs, inputs: [], level });
      return { ...point, predictions: answer.predictions };
    }));
  }

  #list(points, output, words, more) {
    const { model } = this.state;
    const others = this.#constraints.map((each) => each.output);
    at("finder-words").textContent = words;
    at("finder-scroll").hidden = false;
    fillPoints(at("finder-points"), model, points, {
      outputs: [...new Set([output, ...others])], more: more ? [more] : [], go: this.go, taken: "Use",
    });
  }
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + ".";
