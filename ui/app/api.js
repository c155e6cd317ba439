// The public HTTP API: requests, pages of lists, events as they come, and uploads with their progress.
// Errors are the API's own: a code and a sentence.

const ROOT = new URL("../", import.meta.url); // the pages lie in /ui/, the API beside them
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const AWAY = "The service cannot be reached; look whether it runs. This page goes on by itself once it does.";

/** What the API says is wrong. `status` 0: it could not be reached. `param`: the field that is meant. */
export class ApiError extends Error {
  constructor(status, code, detail, param = null) {
    super(detail);
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.param = param;
  }
}

/** Calls back whenever the API asks for a key. Returns how to stop. */
export function onSignInNeeded(call) {
  const listen = (event) => call(event.detail);
  unauthorized.addEventListener("needed", listen);
  return () => unauthorized.removeEventListener("needed", listen);
}

const unauthorized = new EventTarget();

/** The address of a path with a query; entries that are null, undefined or "" are left out. */
export function address(path, query = {}) {
  const url = new URL(path.replace(/^\//, ""), ROOT);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url.href;
}

/** The answer's JSON. `body` is sent as JSON. Throws `ApiError`, or an `AbortError`. */
export async function request(method, path, { query, body, signal, headers = {} } = {}) {
  const response = await send(method, path, { query, body, signal, headers });
  return response.status === 204 ? null : response.json();
}

export const get = (path, query, signal) => request("GET", path, { query, signal });
export const post = (path, body, options) => request("POST", path, { body, ...options });
export const del = (path, query) => request("DELETE", path, { query });

/** A POST that makes a job: sent again with the same key, it makes no second one. */
export const create = (path, body, key = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`) =>
  post(path, body, { headers: { "Idempotency-Key": key } });

/** The beginning of a file, as text: `{text, isWhole}`. */
export async function beginning(path, { mostBytes = 65_536, signal } = {}) {
  const response = await send("GET", path, { signal, headers: { Accept: "*/*", Range: `bytes=0-${mostBytes - 1}` } });
  const size = Number(response.headers.get("Content-Range")?.split("/")[1] ?? 0);
  return { text: await response.text(), isWhole: response.status === 200 || size <= mostBytes };
}

/** Whose key the browser shows: `{signed_in, key_id, project, scopes}`. */
export const session = () => get("/session");
export const signIn = (key) => post("/session", { key });
export const signOut = () => del("/session");

async function send(method, path, { query, body, signal, headers }) {
  let response;
  try {
    response = await fetch(address(path, query), {
      method,
      signal,
      credentials: "same-origin",
      headers: { Accept: "application/json", ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ApiError(0, "unreachable", AWAY);
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response) {
  const error = errorFrom(response.status, await response.text());
  if (response.status === 401) unauthorized.dispatchEvent(new CustomEvent("needed", { detail: error }));
  return error;
}

function errorFrom(status, text) {
  try {
    const said = JSON.parse(text);
    const { code, message, param } = typeof said.error === "object" ? said.error : { code: said.error, message: said.detail, param: said.param };
    return new ApiError(status, code, message, param ?? null);
  } catch {
    return new ApiError(status, `http_${status}`, `The service answered ${status}, and did not say why; try again.`);
  }
}

/** Server-sent events of one answer, as `{id, name, data}`; `data` is parsed JSON, or the text where it is none. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { id: null, name: "message", lines: [] };
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.lines.length) yield { id: event.id, name: event.name, data: parsed(event.lines.join("\n")) };
          event = { id: null, name: "message", lines: [] };
          continue;
        }
        const colon = line.indexOf(":");
        if (colon === 0) continue; // keep-alive
        const name = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (name === "data") event.lines.push(text);
        else if (name === "event") event.name = text;
        else if (name === "id") event.id = text;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // it has ended, or nobody reads any more
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A POST whose answer streams: yields its events. Throws `ApiError` before the first, or `AbortError`. */
export async function* stream(path, body, { signal } = {}) {
  const response = await send("POST", path, { body, signal, headers: { Accept: "text/event-stream" } });
  yield* events(response);
}

/**
 * Follows a job's events from behind the id `after` to its end, through lost connections and restarts: it comes back
 * with Last-Event-ID after growing waits. While nobody sees the page it lets go, because a browser gives all tabs
 * together six connections. `onEvents` gets the events in small lots, `onState` "open", "waiting" or "ended".
 * Returns how to stop.
 */
export function follow(path, { after = 0, onEvents, onState = () => {}, onError = () => {} }) {
  let stopped = false;
  let controller = null;
  let wake = () => {};
  let wait = FIRST_WAIT_MS;
  const looked = () => (document.hidden ? controller?.abort() : wake());
  document.addEventListener("visibilitychange", looked);

  const sleep = (ms) =>
    new Promise((resolve) => {
      const timer = ms === null ? null : setTimeout(resolve, ms);
      wake = () => (clearTimeout(timer), resolve());
    });

  async function once() {
    controller = new AbortController();
    const headers = { Accept: "text/event-stream", "Last-Event-ID": String(after) };
    const response = await send("GET", path, { query: { stream: true }, signal: controller.signal, headers });
    onState("open");
    wait = FIRST_WAIT_MS;
    let lot = [];
    let timer = null;
    const flush = () => {
      clearTimeout(timer);
      timer = null;
      const ready = lot;
      lot = [];
      if (ready.length && !stopped) onEvents(ready);
    };
    try {
      for await (const event of events(response)) {
        if (event.name === "end") return flush(), event.data;
        if (event.name === "error") throw new ApiError(503, event.data.error, event.data.detail);
        if (event.id !== null) after = Number(event.id);
        lot.push(event.data);
        if (lot.length >= 500) flush();
        else timer ??= setTimeout(flush, 50);
      }
    } finally {
      flush();
    }
    return null; // cut off: come back
  }

  (async () => {
    while (!stopped) {
      if (document.hidden) {
        await sleep(null);
        continue;
      }
      try {
        const end = await once();
        if (stopped) return;
        if (end) return onState("ended", end);
      } catch (error) {
        if (stopped) return;
        if (error.name !== "AbortError") {
          if (error.status >= 400 && error.status < 500 && error.status !== 429) return onError(error);
          onError(error);
        }
      }
      if (stopped || document.hidden) continue;
      onState("waiting");
      await sleep(wait * (0.8 + 0.4 * Math.random()));
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  })();

  return () => {
    stopped = true;
    document.removeEventListener("visibilitychange", looked);
    controller?.abort();
    wake();
  };
}

/** Uploads files, and texts by name, with their progress, which `fetch` does not tell. Throws `ApiError`. */
export function upload(path, files, { field = "files", texts = {}, onProgress = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    for (const file of [files].flat()) form.append(field, file, file.name);
    for (const [name, text] of Object.entries(texts)) if (text) form.append(name, text);
    const sending = new XMLHttpRequest();
    sending.open("POST", address(path));
    sending.upload.onprogress = (event) => onProgress(event.lengthComputable ? event.loaded / event.total : null);
    sending.onerror = () => reject(new ApiError(0, "unreachable", AWAY));
    sending.onabort = () => reject(new DOMException("aborted", "AbortError"));
    sending.onload = () => {
      if (sending.status < 300) return resolve(JSON.parse(sending.responseText));
      const error = errorFrom(sending.status, sending.responseText);
      if (error.status === 401) unauthorized.dispatchEvent(new CustomEvent("needed", { detail: error }));
      reject(error);
    };
    signal?.addEventListener("abort", () => sending.abort());
    sending.send(form);
  });
}
