// The page: which model, which point, which view, and what follows when one of them changes.
import * as address from "./address.js";
import { at, debounced, element, fill } from "./element.js";
import { Doubt } from "./doubt.js";
import { Fields } from "./fields.js";
import { Finder } from "./finder.js";
import { Latest, Pace } from "./follow.js";
import { Influence } from "./influence.js";
import { loadModel } from "./model.js";
import { counted, interval, number, percent } from "./numbers.js";
import { PlaneView } from "./plane.js";
import { Predictions } from "./predictions.js";
import { addressOf, ask } from "./service.js";
import { MOST, Slices } from "./slices.js";
import { Sliders } from "./sliders.js";
import { Tabs } from "./tabs.js";
import { followTheme } from "./theme.js";
import { Upload } from "./upload.js";

const MOST_OUTPUTS = 8; // whose curves come with every answer
const SETTLED = 200; // milliseconds after the last move
const FINE = 41; // points of a slice when nothing moves

const state = { model: null, values: {}, output: "", level: 0.9, view: "slices", x: "", y: "", show: "mean", predictions: null };

const sliders = new Sliders(at("sliders"), move);
const predictions = new Predictions(at("predictions"), chooseOutput);
const slices = new Slices(at("slices"), move);
const views = {
  map: new PlaneView(state, { moved: move, saved: save, complain }),
  influence: new Influence(state),
  doubt: new Doubt(state, { go }),
  finder: new Finder(state, { go, complain }),
  upload: new Upload(state),
};
const tabs = new Tabs(document.querySelector('[role="tablist"]'), chooseView);
const fields = new Fields({ complain });
const follower = new Latest(follow);
const pace = new Pace();

// -- what a reader does ---------------------------------------------------------------------------

function move(name, value, since) {
  state.values = { ...state.values, [name]: value };
  sliders.put(name, value);
  follower.push({ since, moved: name });
  settle();
}

// Jump to a point: of a table, or the usual one.
function go(values) {
  state.values = { ...values };
  sliders.set(state.values);
  follower.push({});
  settle();
}

function chooseOutput(name) {
  state.output = name;
  predictions.choose(name);
  showSubject();
  if (state.predictions) glance();
  drawSlices();
  enter();
  settle();
}

function chooseView(name) {
  state.view = name;
  if (name === "slices") drawSlices();
  enter();
  settle();
}

// Let the shown view look at the present model, output and level.
async function enter() {
  try {
    await views[state.view]?.enter();
  } catch (error) {
    complain(error);
  }
}

const settle = debounced(() => follower.push({ settled: true }), SETTLED);

// -- what follows ---------------------------------------------------------------------------------

// Predict the present point and what the view shows of its surroundings; draw it.
async function follow({ since, moved, settled }) {
  const { model, values, view, level, output } = state;
  if (!model) return;
  const lines = view === "slices" ? slices.inputs.filter((name) => settled || name !== moved) : [];
  const points = settled ? FINE : pace.points(lines.length);
  const outputs = model.outputs.length <= MOST_OUTPUTS ? null : [output];
  const began = performance.now();
  try {
    const answer = await ask(addressOf(model.name, "slices"), { at: values, inputs: lines, outputs, points, level });
    if (model !== state.model) return;
    if (!settled) pace.took(performance.now() - began, points * lines.length);
    slices.take(answer.slices);
    show(answer, values, settled);
    if (since) performance.measure("from slider to drawn", { start: since, end: performance.now() });
    await views[view]?.follow?.({ moved, settled, pace });
    if (settled) settledOn(answer, values);
    at("trouble").hidden = true;
  } catch (error) {
    complain(error);
  }
}

function show(answer, values, settled) {
  state.predictions = answer.predictions;
  state.shown = values;
  predictions.set(answer.predictions);
  glance();
  warn(answer.extrapolation);
  drawSlices(Boolean(settled));
}

// The chosen output in one line, for screens on which the table is out of sight.
function glance() {
  const said = interval(state.predictions[state.output]);
  at("glance").textContent = `${state.output}  ${said.mean}  (${said.ends})`;
  at("glance").hidden = false;
}

function drawSlices(settled) {
  if (state.view !== "slices" || !state.predictions) return;
  slices.draw({ values: state.shown, output: state.output, predictions: state.predictions, settled });
}

function warn(names) {
  const words = names ? `Beyond the runs in ${names}: the prediction is a guess, and its interval promises nothing.` : "";
  const line = at("extrapolation");
  if (line.textContent === words) return;
  line.textContent = words;
  line.hidden = !words;
}

function settledOn(answer, values) {
  slices.describe({ values, output: state.output });
  const said = interval(answer.predictions[state.output]), share = percent(state.level);
  at("said").textContent = `${state.output} ${said.mean}, ${share} interval ${said.ends.replace("…", "to")}`;
  document.documentElement.dataset.settled = String(performance.now());
  save();
}

function save() {
  const { model, output, level, view, x, y, show: shown } = state;
  const map = view === "map" ? { x, y, show: shown } : {};
  address.write({ model: model.name, output, level, view, ...map }, state.values);
}

function complain(error) {
  const line = at("trouble");
  line.textContent = error.message[0].toUpperCase() + error.message.slice(1) + ".";
  line.hidden = false;
  if (!error.status && error.status !== 0) console.error(error);
}

// -- models ---------------------------------------------------------------------------------------

async function openModel(name, said = { inputs: {} }) {
  const model = await loadModel(name);
  const operator = model.kind === "operator";
  at("table-view").hidden = operator;
  at("field-view").hidden = !operator;
  fields.hide();
  if (operator) return openOperator(model, said);
  const wanted = Object.entries(said.inputs).filter(([key]) => model.input(key));
  const given = wanted.map(([key, text]) => [key, model.parse(model.input(key), text)]);
  Object.assign(state, {
    model,
    values: { ...model.usual, ...Object.fromEntries(given.filter(([, value]) => value !== undefined)) },
    output: model.output(said.output)?.name ?? model.outputs[0].name,
    predictions: null,
  });
  describe(model);
  sliders.show(model);
  sliders.set(state.values);
  predictions.show(model, state.output);
  showGroups(model);
  slices.show(model, model.inputs.slice(0, MOST));
  for (const view of Object.values(views)) view.show(said);
  tabs.show(state.view);
  enter();
  showSubject();
  return follower.push({ settled: true });
}

async function openOperator(model, said) {
  state.model = null;
  at("glance").hidden = true;
  document.title = model.name + " – Understudy explorer";
  at("title").textContent = model.name;
  const points = model.grid.shape.join(" × ");
  at("lede").textContent = `Operator of ${model.outputs.join(", ")} on ${points} points${model.dt ? `, ${number(model.dt)} between two times` : ""}.`;
  if (model.grid.shape.length > 2) {
    at("field-view").hidden = true;
    at("lede").textContent += " Fields of three dimensions are not drawn here; ask the service for a rollout.";
    return;
  }
  await fields.show(model, said);
}

// Of many inputs a part is sliced at a time.
function showGroups(model) {
  const n = model.inputs.length, starts = Array.from({ length: Math.ceil(n / MOST) }, (_, k) => k * MOST);
  at("slices-group").parentElement.hidden = starts.length < 2;
  fill(at("slices-group"), starts.map((start) => [start, `${start + 1} to ${Math.min(n, start + MOST)} of ${n}`]));
}

function chooseGroup() {
  const start = Number(at("slices-group").value);
  slices.show(state.model, state.model.inputs.slice(start, start + MOST));
  follower.push({ settled: true });
}

function describe(model) {
  document.title = model.name + " – Understudy explorer";
  at("title").textContent = model.name;
  const scores = model.outputs.map((output) => output.scores.r2).filter((r2) => r2 !== null && r2 !== undefined);
  const worst = scores.length ? [`, R² ${scores.length > 1 ? "at least " : ""}`, element("b", {}, number(Math.min(...scores), 3)), " on runs not learnt from"] : [];
  at("lede").replaceChildren(
    `${counted(model.inputs.length, "input")}, ${counted(model.outputs.length, "output")}, learnt from `,
    element("b", {}, counted(model.rows, "run")), ...worst, ".",
  );
}

function showSubject() {
  for (const place of document.querySelectorAll(".subject-output")) place.textContent = state.output;
}

function showLevel() {
  at("level").value = String(state.level);
  at("interval-head").textContent = percent(state.level) + " interval";
}

// Take over what the address says.
async function openAddress(names) {
  const said = address.read();
  const name = names.includes(said.model) ? said.model : names[0];
  if (tabs.names.includes(said.view)) state.view = said.view;
  const levels = [...at("level").options].map((option) => option.value);
  state.level = levels.includes(said.level) ? Number(said.level) : 0.9;
  at("model").value = name;
  showLevel();
  await openModel(name, said);
}

// -- the page -------------------------------------------------------------------------------------

async function copyLink() {
  if (state.model) save();
  const button = at("link");
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
  } catch {
    button.textContent = "See the address bar";
  }
  setTimeout(() => (button.textContent = "Copy link"), 1500);
}

function redraw() {
  if (!state.model) return fields.redraw();
  drawSlices();
  return views[state.view]?.redraw?.();
}

async function begin() {
  followTheme(redraw);
  addEventListener("resize", debounced(redraw, 100));
  at("link").addEventListener("click", copyLink);
  at("slices-group").addEventListener("change", chooseGroup);
  at("reset").addEventListener("click", () => go(state.model.usual));
  at("level").addEventListener("change", () => {
    state.level = Number(at("level").value);
    showLevel();
    enter();
    follower.push({ settled: true });
  });
  at("model").addEventListener("change", () => openModel(at("model").value).catch(complain));
  try {
    const found = await ask("/v1/models"), models = [...found.models, ...(found.operators || [])];
    fill(at("model"), models.map((name) => [name, name]));
    at("model").disabled = models.length < 2;
    address.onChange(() => openAddress(models).catch(complain));
    await openAddress(models);
  } catch (error) {
    at("lede").textContent = "";
    complain(error);
  }
  document.documentElement.dataset.ready = "true";
}

begin();
