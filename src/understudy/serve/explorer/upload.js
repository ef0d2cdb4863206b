// A CSV file predicted row by row: what cannot be is named by row and column, the rest is not held up.
import { format, parse } from "./csv.js";
import { at, element } from "./element.js";
import { counted, fixed, interval, number, percent } from "./numbers.js";
import { addressOf, ask } from "./service.js";

const PART = 1000; // rows of a request
const SHOWN = 20; // rows in the page
const NAMED = 20; // problems in the page
const LARGEST = 50e6; // bytes

export class Upload {
  constructor(state) {
    this.state = state;
    this.result = null;
    at("file").addEventListener("change", () => this.#open(at("file").files[0]));
    at("download").addEventListener("click", () => this.#download());
    const drop = at("drop");
    drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      this.#open(event.dataTransfer.files[0]);
    });
  }

  show() {
    at("file").value = "";
    this.#clear("");
  }

  enter() {}

  #clear(words) {
    this.result = null;
    at("upload-words").textContent = words;
    for (const id of ["upload-problems", "upload-scroll", "download"]) at(id).hidden = true;
  }

  async #open(file) {
    if (!file) return;
    if (file.size > LARGEST) return this.#clear("That file has more than 50 MB; predict it with understudy predict.");
    this.#clear("Reading …");
    try {
      await this.#predict(file.name, parse(await file.text()));
    } catch (error) {
      this.#clear(error.message[0].toUpperCase() + error.message.slice(1) + ".");
      this.#problems(error.problems?.map((p) => `${p.field}${p.row ? `, row ${p.row}` : ""}: ${p.message}`) || []);
      if (error.status === undefined) console.error(error);
    }
    return undefined;
  }

  async #predict(name, { heads, rows }) {
    const { model, level } = this.state;
    const missing = model.inputs.filter((input) => !heads.includes(input.name)).map((input) => input.name);
    if (missing.length) return this.#clear(`${name} has no column ${missing.map((each) => `“${each}”`).join(", ")}; its columns are ${heads.slice(0, 12).join(", ")}${heads.length > 12 ? " …" : ""}.`);
    if (!rows.length) return this.#clear(`${name} has no rows.`);
    const checked = rows.map((row, i) => check(model, heads, row, i + 1));
    const good = checked.flatMap((row, i) => (row.problems.length ? [] : [i]));
    const predicted = await this.#ask(model, good.map((i) => checked[i].values), level);
    if (model !== this.state.model) return undefined;
    const byRow = new Map(good.map((i, k) => [i, predicted[k]]));
    this.result = { name, heads, rows, byRow, model, level };
    this.#problems(checked.flatMap((row) => row.problems));
    this.#table();
    at("upload-words").textContent = this.#summary(predicted);
    at("download").hidden = !good.length;
    return undefined;
  }

  async #ask(model, rows, level) {
    const found = [];
    for (let from = 0; from < rows.length; from += PART) {
      const { predictions } = await ask(addressOf(model.name, `predict?levels=${level}`), { rows: rows.slice(from, from + PART) });
      found.push(...predictions);
      if (rows.length > PART) at("upload-words").textContent = `${found.length} of ${rows.length} rows …`;
    }
    return found;
  }

  #summary(predicted) {
    const { rows } = this.result, left = rows.length - predicted.length;
    const beyond = predicted.filter((row) => row.extrapolation).length;
    return [
      `${counted(predicted.length, "row")} predicted`,
      ...(left ? [`, ${left} left out for what is named below`] : []),
      ".",
      ...(beyond ? [` ${counted(beyond, "row")} beyond the runs that the model was fitted on, where intervals promise nothing.`] : []),
      ...this.#scores(),
    ].join("");
  }

  // How well known outputs of the file are predicted.
  #scores() {
    const { heads, rows, byRow, model, level } = this.result, suffix = percentOf(level);
    return model.outputs.filter((output) => heads.includes(output.name)).map(({ name }) => {
      const at_ = heads.indexOf(name);
      const pairs = [...byRow].map(([i, row]) => [cellNumber(rows[i][at_]), row]).filter(([y]) => y !== null);
      if (!pairs.length) return "";
      const rmse = Math.sqrt(pairs.reduce((sum, [y, row]) => sum + (y - row[name + "_mean"]) ** 2, 0) / pairs.length);
      const inside = pairs.filter(([y, row]) => y >= row[`${name}_lower_${suffix}`] && y <= row[`${name}_upper_${suffix}`]).length;
      return ` ${name}: root mean square error ${number(rmse, 3)}, ${percent(inside / pairs.length)} inside the ${percent(level)} interval.`;
    });
  }

  #problems(texts) {
    const list = at("upload-problems"), more = texts.length - NAMED;
    list.replaceChildren(...texts.slice(0, NAMED).map((text) => element("li", {}, text)));
    if (more > 0) list.append(element("li", {}, `and ${more} more`));
    list.hidden = !texts.length;
  }

  #table() {
    const { heads, rows, byRow, model, level } = this.result, suffix = percentOf(level), table = at("upload-table");
    const inputs = model.inputs.map((input) => input.name);
    const columns = [["Row", "n"], ...model.outputs.map((output) => [output.name, "n"]), ...inputs.map((input) => [input, "n"]), ["Beyond the runs", ""]];
    table.tHead.replaceChildren(element("tr", {}, ...columns.map(([name, kind]) => element("th", { scope: "col", class: kind }, name))));
    table.tBodies[0].replaceChildren(...rows.slice(0, SHOWN).map((row, i) => {
      const found = byRow.get(i);
      const outputs = model.outputs.map(({ name }) => {
        if (!found) return element("td", { class: "n" }, "–");
        const words = interval({ mean: found[name + "_mean"], lower: found[`${name}_lower_${suffix}`], upper: found[`${name}_upper_${suffix}`] });
        return element("td", { class: "n" }, words.mean, element("span", { class: "ci" }, words.ends));
      });
      const given = inputs.map((name) => element("td", { class: "n" }, row[heads.indexOf(name)] || "–"));
      return element("tr", {}, element("th", { scope: "row", class: "n" }, fixed(i + 1, 0)), ...outputs, ...given, element("td", {}, found?.extrapolation || ""));
    }));
    at("upload-scroll").hidden = false;
  }

  // The file with columns of predictions, as `understudy predict` names them.
  #download() {
    const { name, heads, rows, byRow } = this.result;
    const added = Object.keys(byRow.values().next().value);
    const lines = rows.map((row, i) => [...heads.map((_, k) => row[k] ?? ""), ...added.map((key) => byRow.get(i)?.[key])]);
    const text = format([...heads, ...added], lines.map((row, i) => row.map((cell, k) => (k < heads.length ? asRead(rows[i][k]) : cell))));
    const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name.replace(/\.[^.]*$/, "") + "-predictions.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}

// Values of the inputs of one row, and what is wrong with them.
function check(model, heads, row, at_) {
  const values = {}, problems = [];
  for (const input of model.inputs) {
    const text = (row[heads.indexOf(input.name)] ?? "").trim();
    const value = input.kind === "categorical" ? choice(input, text) : cellNumber(text);
    if (value === null) problems.push(`Row ${at_}, column “${input.name}”: ${text === "" ? "the cell is empty" : `“${text.slice(0, 40)}” is ${input.kind === "categorical" ? "none of the choices " + input.choices.slice(0, 8).join(", ") : "no number"}`}`);
    values[input.name] = value;
  }
  return { values, problems };
}

const choice = (input, text) => (text === "" ? null : input.choices.find((each) => String(each).toLowerCase() === text.toLowerCase()) ?? null);

function cellNumber(text) {
  const trimmed = (text ?? "").trim(), value = trimmed === "" ? NaN : Number(trimmed);
  return Number.isFinite(value) ? value : null;
}

const asRead = (text) => (cellNumber(text) === null ? text : Number.isFinite(Number(text)) && /^[-+\d.eE]+$/.test(text.trim()) ? Number(text) : text);
const percentOf = (level) => String(Number((100 * level).toPrecision(6)));
