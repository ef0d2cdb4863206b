// A model as the page sees it: inputs with scales, outputs with ranges, and runs.
import { addressOf, ask } from "./service.js";
import { rounded } from "./numbers.js";
import { padded, scaleOf } from "./scales.js";

const RUNS = 400;

// A model of tables with its runs, or the description of an operator of fields as it is.
export async function loadModel(name) {
  const description = await ask(addressOf(name));
  if (description.kind === "operator") return { ...description, ...(await ask(addressOf(name, "scales"))), name };
  return new Model(description, await ask(addressOf(name, `runs?most=${RUNS}`)));
}

class Model {
  constructor(description, runs) {
    this.name = description.name;
    this.rows = runs.rows;
    this.runs = runs.columns;
    this.inputs = description.inputs.map((input) => ({ ...input, scale: scaleOf(input), label: labelled(input) }));
    this.outputs = description.outputs.map((output) => ({ ...output, range: padded(runs.columns[output.name], 0) }));
    this.members = description.members;
    this.units = this.inputs.map((input) => this.#unitsOf(input));
  }

  input(name) {
    return this.inputs.find((input) => input.name === name);
  }

  output(name) {
    return this.outputs.find((output) => output.name === name);
  }

  // Where a value of an input lies: its number, or the index of a choice.
  position(input, value) {
    return input.kind === "categorical" ? input.choices.indexOf(value) : value;
  }

  // Median of the runs of each number, most frequent choice.
  get usual() {
    return Object.fromEntries(this.inputs.map((input) => [input.name, usual(input, this.runs[input.name])]));
  }

  // A text of the address as a value of an input; undefined where it is none.
  parse(input, text) {
    if (input.kind === "categorical") return input.choices.find((choice) => String(choice) === text);
    const value = text.trim() === "" ? NaN : Number(text);
    const whole = input.kind !== "integer" || Number.isInteger(value);
    return Number.isFinite(value) && whole && (!input.log || value > 0) ? value : undefined;
  }

  // How near each run is to a point in all inputs but some, from 0 to 1.
  nearness(values, without) {
    const n = this.runs[this.inputs[0].name].length, sums = new Float64Array(n);
    let others = 0;
    this.inputs.forEach((input, j) => {
      if (without.includes(input.name)) return;
      others += 1;
      const here = place(input, values[input.name]), column = this.units[j];
      for (let i = 0; i < n; i++) sums[i] += input.kind === "categorical" ? Number(column[i] !== here) : (column[i] - here) ** 2;
    });
    return Array.from(sums, (sum) => Math.exp(-sum / Math.max(1, others) / 0.08));
  }

  #unitsOf(input) {
    return this.runs[input.name].map((value) => (value === null ? NaN : place(input, value)));
  }
}

const labelled = (input) => input.name + (input.unit ? " [" + input.unit + "]" : "");

const place = (input, value) =>
  input.kind === "categorical" ? input.choices.indexOf(value) : input.scale.unit(value);

function usual(input, column) {
  const present = column.filter((value) => value !== null);
  if (input.kind === "categorical") {
    const count = (choice) => present.filter((value) => value === choice).length;
    return input.choices.reduce((best, choice) => (count(choice) > count(best) ? choice : best));
  }
  const middle = present.sort((a, b) => a - b)[Math.floor(present.length / 2)] ?? input.lower;
  return input.kind === "integer" ? Math.round(middle) : rounded(middle);
}
