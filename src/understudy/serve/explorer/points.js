// Tables of points: their inputs, what is predicted there, and a button that goes there.
import { element } from "./element.js";
import { interval, valueText } from "./numbers.js";

// Fill a table with points. `more` are columns [heading, text of a point]; `outputs` the names shown.
export function fillPoints(table, model, points, { outputs, more = [], go, taken = "Go there" }) {
  const heads = [
    ...more.map(([heading]) => element("th", { scope: "col", class: "n" }, heading)),
    ...outputs.map((name) => element("th", { scope: "col", class: "n", title: name }, name)),
    ...model.inputs.map((input) => element("th", { scope: "col", class: "n", title: input.label }, input.label)),
  ];
  table.tHead.replaceChildren(element("tr", {}, element("th", { scope: "col" }, element("span", { class: "hidden" }, "Go")), ...heads));
  table.tBodies[0].replaceChildren(...points.map((point, at) => {
    const cells = [
      ...more.map(([, text]) => element("td", { class: "n" }, text(point))),
      ...outputs.map((name) => predicted(point.predictions[name])),
      ...model.inputs.map((input) => element("td", { class: "n" }, valueText(input, point.inputs[input.name]))),
    ];
    const button = element("button", { type: "button", "aria-label": `${taken}: point ${at + 1}`, onclick: () => go(point.inputs) }, taken);
    return element("tr", {}, element("td", {}, button), ...cells);
  }));
}

function predicted(cell) {
  const words = interval(cell);
  return element("td", { class: "n" }, words.mean, element("span", { class: "ci" }, words.ends));
}
