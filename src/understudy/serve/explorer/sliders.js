// A slider for each number and a list for each choice, with the value beside it to type.
import { element, fill } from "./element.js";
import { number, rounded } from "./numbers.js";

const STEPS = 200;

export class Sliders {
  // `moved(name, value, since)` hears of every change by hand.
  constructor(place, moved) {
    this.place = place;
    this.moved = moved;
    this.controls = new Map();
  }

  show(model) {
    this.controls.clear();
    this.place.replaceChildren(...model.inputs.map((input, at) => this.#control(input, at)));
  }

  // Put all controls where the values are.
  set(values) {
    for (const [name, control] of this.controls) control.set(values[name]);
  }

  // Put one control where its value is.
  put(name, value) {
    this.controls.get(name).set(value);
  }

  #control(input, at) {
    return input.kind === "categorical" ? this.#list(input, at) : this.#slider(input, at);
  }

  #list(input, at) {
    const id = "input-" + at;
    const list = element("select", { id });
    fill(list, input.choices.map((choice, index) => [index, String(choice)]));
    list.addEventListener("change", (event) => this.moved(input.name, input.choices[list.value], event.timeStamp));
    this.controls.set(input.name, { set: (value) => (list.value = input.choices.indexOf(value)) });
    return element("div", { class: "input choice" }, element("label", { for: id, title: input.name }, input.name), list);
  }

  #slider(input, at) {
    const whole = input.kind === "integer", id = "input-" + at;
    const few = whole && input.upper - input.lower <= STEPS;
    const slider = element("input", {
      id, type: "range", min: few ? input.lower : 0, max: few ? input.upper : STEPS, step: 1,
    });
    const unit = input.unit ? element("span", { class: "unit" }, input.unit) : "";
    const box = element("input", {
      type: "number", step: whole ? 1 : "any", class: "value", "aria-label": input.label + ", value",
    });
    const valueOf = (step) => {
      if (few) return Number(step);
      const value = input.scale.value(step / STEPS);
      return whole ? Math.round(value) : tidy(value, input);
    };
    const set = (value) => {
      slider.value = few ? value : Math.round(STEPS * input.scale.unit(value));
      if (document.activeElement !== box) box.value = rounded(value, 6);
      slider.setAttribute("aria-valuetext", number(value) + (input.unit ? " " + input.unit : ""));
      box.classList.toggle("beyond", value < input.lower || value > input.upper);
      box.setAttribute("aria-invalid", "false");
    };
    slider.addEventListener("input", (event) => {
      const value = valueOf(slider.value);
      box.value = value;
      this.moved(input.name, value, event.timeStamp);
    });
    box.addEventListener("input", (event) => {
      const value = box.valueAsNumber, fits = Number.isFinite(value) && (!whole || Number.isInteger(value)) && (!input.log || value > 0);
      box.setAttribute("aria-invalid", String(!fits));
      if (fits) this.moved(input.name, value, event.timeStamp);
    });
    box.addEventListener("blur", () => this.blurred?.(input.name));
    this.controls.set(input.name, { set });
    const ends = element("span", { class: "ends" }, element("span", {}, number(input.lower)), element("span", {}, number(input.upper)));
    return element(
      "div", { class: "input" },
      element("label", { for: id, title: input.label }, input.name),
      element("span", { class: "typed" }, box, unit), slider, ends,
    );
  }
}

// A value of a slider with no more digits than its steps tell apart.
function tidy(value, input) {
  if (input.log) return rounded(value, 4);
  const decimals = Math.max(0, Math.min(12, 1 - Math.floor(Math.log10((input.upper - input.lower) / STEPS))));
  const text = Number(value.toFixed(decimals));
  return decimals === 12 ? rounded(value) : Math.min(input.upper, Math.max(input.lower, text));
}
