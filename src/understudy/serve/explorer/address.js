// The state of the page in its address, so that a link shows what its sender saw.

const INPUT = "in.";
const KEYS = ["model", "output", "level", "view", "x", "y", "show", "start", "size", "detail", "seed", "steps", "samples"];

// What the address says; empty where it says nothing.
export function read() {
  const found = new URLSearchParams(location.hash.slice(1));
  const inputs = {};
  for (const [key, value] of found) if (key.startsWith(INPUT)) inputs[key.slice(INPUT.length)] = value;
  return { ...Object.fromEntries(KEYS.map((k) => [k, found.get(k)])), inputs };
}

let written = "";

// Write a state; the page's history gets no entry for each move of a slider.
export function write(state, inputs) {
  const said = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) if (value != null) said.set(key, value);
  for (const [name, value] of Object.entries(inputs)) said.set(INPUT + name, value);
  written = "#" + said;
  if (location.hash !== written) history.replaceState(null, "", written);
}

// Call back when somebody else changes the address.
export const onChange = (work) =>
  addEventListener("hashchange", () => location.hash !== written && work());
