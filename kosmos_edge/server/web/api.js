// The server's routes: requests, server-sent events, and errors in plain words.

export class ServerError extends Error {
  constructor(status, error, retryAfter) {
    super(error.message || `status ${status}`);
    this.status = status;
    this.param = error.param || null;
    this.code = error.code || null;
    this.retryAfter = retryAfter;
  }
}

/** The server cannot be reached, or stopped in the middle (begun). */
export class Unreachable extends Error {
  constructor(begun) {
    super(begun ? "the answer broke off" : "no connection");
    this.begun = begun;
  }
}

let key = readKey();

function readKey() {
  try {
    return sessionStorage.getItem("kosmos-edge-key") || "";
  } catch {
    return ""; // storage is switched off
  }
}

export function setKey(value) {
  key = value.trim();
  try {
    sessionStorage.setItem("kosmos-edge-key", key);
  } catch {
    // kept in memory only
  }
}

async function request(path, { body, signal } = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = { headers, signal, cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Unreachable(false);
  }
  if (response.ok) return response;
  let found = {};
  try {
    found = (await response.json()).error || {};
  } catch {
    // a proxy's page, say: the status alone tells
  }
  throw new ServerError(response.status, found, Number(response.headers.get("Retry-After")) || null);
}

/** What is served: model, tasks, limits. */
export async function getAbout() {
  return (await request("v1/about")).json();
}

/** Events of a stream, as {event, data}; data is parsed, but for OpenAI's [DONE]. */
export async function* stream(path, body, signal) {
  const response = await request(path, { body: { ...body, stream: true }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      pending += value;
      const blocks = pending.split("\n\n");
      pending = blocks.pop();
      for (const block of blocks) yield parse(block);
    }
  } catch (error) {
    throw error.name === "AbortError" || error instanceof ServerError ? error : new Unreachable(true);
  } finally {
    reader.cancel().catch(() => {}); // the server ends its work when the stream is given up
  }
}

function parse(block) {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) event = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  const text = data.join("\n");
  const value = text === "[DONE]" ? text : JSON.parse(text);
  if (value.error) throw new ServerError(statusOf(value.error), value.error, null);
  return { event, data: value };
}

/** The status that an error in the middle of a stream would have had. */
function statusOf(error) {
  return { timeout: 504, cancelled: 503, overloaded: 503, model_not_available: 503 }[error.code] || 500;
}

export function size(bytes) {
  if (bytes < 1048576) return `${Math.floor(bytes / 1024)} KB`;
  return `${Math.floor((bytes / 1048576) * 10) / 10} MB`;
}

/** The largest picture file that fits into a request: base64 needs four characters for three bytes. */
export function largestFile(about) {
  return Math.floor(((about.limits.body_bytes - 4096) / 4) * 3);
}

/** A message of the server with a capital letter and a full stop. */
function sentence(message) {
  return message && message[0].toUpperCase() + message.slice(1) + (/[.!?]$/.test(message) ? "" : ".");
}

/** An error for the user: {title, detail}. */
export function inWords(error, about) {
  if (error instanceof Unreachable) {
    return error.begun
      ? { title: "The answer broke off.", detail: "The connection to the server was lost. Is kosmos-edge serve still running?" }
      : { title: "The server cannot be reached.", detail: "Is kosmos-edge serve still running?" };
  }
  if (!(error instanceof ServerError)) return { title: "Something went wrong in this page.", detail: String(error) };
  const detail = sentence(error.message);
  switch (error.status) {
    case 400:
      return { title: "The server does not take this request.", detail };
    case 401:
      return { title: "The server wants an API key.", detail: "" };
    case 403:
      return { title: "The server does not serve this page’s address.", detail };
    case 413:
      return { title: "This picture is too large for the server.", detail: about ? `It takes files of up to ${size(largestFile(about))}.` : detail };
    case 415:
    case 422:
      return { title: "The server cannot use this picture.", detail: sentence(error.message.replace(/^(image|the given bytes): /, "")) };
    case 429:
      return { title: "The server is busy.", detail: `Too many requests are waiting. Try again in ${error.retryAfter || 1} s.` };
    case 503:
      return { title: "The server cannot answer now.", detail };
    case 504:
      return { title: "The answer took too long.", detail };
    default:
      return { title: "The server made an error.", detail };
  }
}
