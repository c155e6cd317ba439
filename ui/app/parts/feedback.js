// What the page says back: short notices that go by themselves, and problems in the API's own words.
import { html, useEffect, useState } from "./html.js";

const bus = new EventTarget();
const SHOWN_MS = 6000;

/** Shows a short notice and has it read out. `kind`: "info" or "problem"; problems stay until they are closed. */
export function say(text, kind = "info") {
  bus.dispatchEvent(new CustomEvent("said", { detail: { text, kind, id: crypto.randomUUID?.() ?? String(Math.random()) } }));
}

/** Runs what may fail, and says the API's sentence if it does. Gives whether it worked. */
export async function attempt(call, done = null) {
  try {
    await call();
    if (done) say(done);
    return true;
  } catch (error) {
    if (error.name !== "AbortError") say(error.detail ?? String(error), "problem");
    return false;
  }
}

/** Where notices appear; one a page. */
export function Notices() {
  const [notices, setNotices] = useState([]);
  const drop = (id) => setNotices((before) => before.filter((one) => one.id !== id));
  useEffect(() => {
    const listen = ({ detail }) => {
      setNotices((before) => [...before.slice(-3), detail]);
      if (detail.kind === "info") setTimeout(() => drop(detail.id), SHOWN_MS);
    };
    bus.addEventListener("said", listen);
    return () => bus.removeEventListener("said", listen);
  }, []);
  return html`<div class="notices" role="status" aria-live="polite">
    ${notices.map(
      (one) => html`<div key=${one.id} class=${`notice ${one.kind}`}>
        <span>${one.text}</span>
        <button type="button" class="plain" aria-label="Close this notice" onClick=${() => drop(one.id)}>×</button>
      </div>`,
    )}
  </div>`;
}

/** An error where it belongs: the sentence, then its code. */
export function Problem({ error, title = null, children = null }) {
  if (!error) return null;
  return html`<div class="problem" role="alert">
    ${title && html`<strong>${title}</strong>`}
    <p>${error.detail ?? error.message}</p>
    ${error.code && html`<p class="code">Code <code>${error.code}</code></p>`} ${children}
  </div>`;
}

/** A list with nothing in it: what it is for, and what to do next. */
export function Empty({ title, children, action = null }) {
  return html`<div class="empty">
    <h2>${title}</h2>
    <p>${children}</p>
    ${action}
  </div>`;
}

/** While something is loaded for the first time. */
export const Loading = ({ what = "" }) => html`<p class="loading" role="status">Loading ${what} …</p>`;
