// Requests to the service, with a token where it wants one.
import { arrays } from "./npz.js";
import { askToken, token } from "./token.js";

export class Refused extends Error {
  constructor(status, error) {
    super(error.message || "the service answered " + status);
    this.status = status;
    this.problems = error.problems || [];
    this.more = error.more_problems || 0;
  }
}

const headers = () => (token() ? { Authorization: "Bearer " + token() } : {});

// The answer to a request as an object.
export async function ask(path, body) {
  return (await answered(path, body, "application/json")).json();
}

// The answer to a request as arrays by name.
export async function askArrays(path, body) {
  return arrays(await (await answered(path, body, "application/x-npz")).arrayBuffer());
}

// What the service answers; a token is asked for when it is missing or wrong.
async function answered(path, body, accept) {
  const posted = body && { method: "POST", body: JSON.stringify(body) };
  const kind = body && { "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(path, { ...posted, headers: { ...headers(), ...kind, Accept: accept } });
  } catch {
    throw new Refused(0, { message: "the service cannot be reached" });
  }
  if (response.status === 401) {
    await askToken();
    return answered(path, body, accept);
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new Refused(response.status, answer.error || {});
}

export const addressOf = (model, what = "") =>
  "/v1/models/" + encodeURIComponent(model) + (what && "/" + what);
