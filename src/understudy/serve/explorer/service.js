// Requests to the service, with a token where it wants one.
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

// The answer to a request as an object; a token is asked for when it is missing or wrong.
export async function ask(path, body, { signal } = {}) {
  const posted = body && {
    method: "POST",
    body: JSON.stringify(body),
    headers: { ...headers(), "Content-Type": "application/json" },
  };
  let response;
  try {
    response = await fetch(path, { signal, ...(posted || { headers: headers() }) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { message: "the service cannot be reached" });
  }
  if (response.status === 401) {
    await askToken();
    return ask(path, body, { signal });
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, answer.error || {});
  return answer;
}

export const addressOf = (model, what = "") =>
  "/v1/models/" + encodeURIComponent(model) + (what && "/" + what);
