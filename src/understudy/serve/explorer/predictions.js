// The table of outputs: mean, interval, and where that lies among the runs.
import { element } from "./element.js";
import { interval } from "./numbers.js";
import { linear } from "./scales.js";

export class Predictions {
  // `chosen(name)` hears which output the pictures shall show.
  constructor(table, chosen) {
    this.body = table.tBodies[0];
    this.chosen = chosen;
    this.rows = new Map();
  }

  show(model, output) {
    this.rows.clear();
    this.body.replaceChildren(...model.outputs.map((each, at) => this.#row(each, at, each.name === output)));
  }

  choose(output) {
    const row = this.rows.get(output);
    if (row) row.radio.checked = true;
  }

  set(predictions) {
    for (const [name, row] of this.rows) {
      const said = interval(predictions[name]);
      row.mean.textContent = said.mean;
      row.ends.textContent = said.ends;
      row.place(predictions[name]);
    }
  }

  #row(output, at, checked) {
    const id = "output-" + at;
    const radio = element("input", { type: "radio", name: "output", id, value: output.name, checked });
    radio.addEventListener("change", () => this.chosen(output.name));
    const [mean, ends] = [element("td", { class: "n mean" }), element("td", { class: "n" })];
    const [band, dot] = [element("span", { class: "band" }), element("span", { class: "dot" })];
    const scale = linear(...output.range);
    const clamp = (v) => Math.max(0, Math.min(1, scale.unit(v)));
    const place = ({ mean: m, lower, upper }) => {
      if (m === null) return;
      band.style.left = 100 * clamp(lower) + "%";
      band.style.width = 100 * (clamp(upper) - clamp(lower)) + "%";
      dot.style.left = 100 * clamp(m) + "%";
    };
    this.rows.set(output.name, { radio, mean, ends, place });
    return element(
      "tr", {},
      element("th", { scope: "row", class: "name" }, element("label", { for: id, title: output.name }, radio, element("span", {}, output.name))),
      mean, ends,
      element("td", { class: "strip-cell" }, element("span", { class: "strip", "aria-hidden": "true" }, band, dot)),
    );
  }
}
