// Light and dark: as the system says, until the button says otherwise.
import { at } from "./element.js";
import { readColours } from "./picture.js";

export function followTheme(redraw) {
  const dark = matchMedia("(prefers-color-scheme: dark)"), button = at("theme");
  const set = (name) => {
    document.documentElement.dataset.theme = name;
    button.textContent = name === "dark" ? "Light" : "Dark";
    readColours();
    redraw();
  };
  button.addEventListener("click", () => set(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  dark.addEventListener("change", (event) => set(event.matches ? "dark" : "light"));
  set(dark.matches ? "dark" : "light");
}
