// Which inputs matter for an output: Sobol indices as bars.
import { at, element } from "./element.js";
import { fixed } from "./numbers.js";
import { addressOf, ask } from "./service.js";

const SAMPLES = 512;

export class Influence {
  constructor(state) {
    this.state = state;
    this.indices = new Map(); // of each model that was asked
  }

  show() {}

  async enter() {
    const { model } = this.state;
    if (!this.indices.has(model.name)) {
      at("influence-words").textContent = "Computing …";
      at("influence").tBodies[0].replaceChildren();
      const { indices } = await ask(addressOf(model.name, `sensitivity?samples=${SAMPLES}`));
      this.indices.set(model.name, indices);
    }
    if (model === this.state.model) this.#fill();
  }

  #fill() {
    const { model, output } = this.state;
    const rows = this.indices.get(model.name).filter((row) => row.target === output);
    rows.sort((a, b) => b.total - a.total);
    const most = Math.max(1, ...rows.map((row) => Math.min(1.2, row.total_high ?? row.total)));
    at("influence").tBodies[0].replaceChildren(...rows.map((row) => line(row, model.input(row.input), most)));
    at("influence").tHead.rows[0].cells[3].textContent = "0 … " + fixed(most, most > 1 ? 1 : 0);
    const kinds = [...new Set(rows.map((row) => row.interval))];
    at("influence-words").textContent = kinds.length ? `The intervals hold ${kinds.join("; ")}.` : "";
  }
}

function line(row, input, most) {
  const share = (v) => 100 * Math.max(0, Math.min(1, v / most)) + "%";
  const bar = (name) => {
    const body = element("span", { class: "share " + name }), error = element("span", { class: "error" });
    body.style.width = share(row[name]);
    error.style.left = share(row[name + "_low"]);
    error.style.width = `calc(${share(row[name + "_high"])} - ${share(row[name + "_low"])})`;
    return element("span", { class: "share-line" }, body, error);
  };
  return element(
    "tr", {},
    element("th", { scope: "row", class: "name", title: input.label }, input.label),
    element("td", { class: "n" }, fixed(row.first, 2)),
    element("td", { class: "n" }, fixed(row.total, 2)),
    element("td", { class: "bar-cell" }, element("span", { class: "shares", "aria-hidden": "true" }, bar("first"), bar("total"))),
  );
}
