// The bearer token of a service that wants one, kept for this tab alone.
import { at } from "./element.js";

const KEY = "understudy-token";

export const token = () => sessionStorage.getItem(KEY) || "";

let asked = null;

// Ask for a token; many requests that are refused together ask once.
export function askToken() {
  asked ??= new Promise((resolve) => {
    const dialog = at("token-dialog"), form = at("token-form"), field = at("token");
    at("token-words").classList.toggle("bad", Boolean(token()));
    if (token()) at("token-words").textContent = "The service did not take that token.";
    sessionStorage.removeItem(KEY);
    field.value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    form.onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, field.value.trim());
      dialog.close();
      asked = null;
      resolve();
    };
    dialog.showModal();
  });
  return asked;
}
