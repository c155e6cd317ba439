// What a training would take, before it is started: asked of the API a moment after the last change.
import { post } from "../api.js";
import { Problem } from "./feedback.js";
import { bytes, count, DASH, duration } from "./format.js";
import { html, useEffect, useState } from "./html.js";

const PAUSE_MS = 400;
const FIGURES = [
  ["examples", "Examples", count],
  ["tokens", "Tokens", count],
  ["steps", "Steps", count],
  ["seconds", "Time", duration],
  ["memory_bytes", "Memory", bytes],
];

/** `body` is that of a setup. */
export function Estimate({ body }) {
  const [{ estimate, error }, setAnswer] = useState({ estimate: null, error: null });
  const text = JSON.stringify(body);
  useEffect(() => {
    const controller = new AbortController();
    const timer = setTimeout(async () => {
      try {
        setAnswer({ estimate: await post("/fine-tuning/estimate", JSON.parse(text), { signal: controller.signal }), error: null });
      } catch (failed) {
        if (failed.name !== "AbortError") setAnswer({ estimate: null, error: failed });
      }
    }, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [text]);
  return html`<section class="card" aria-label="Estimate">
    <h2>What it will take</h2>
    ${!estimate && !error && html`<p class="muted">Reckoning …</p>`}
    ${error && html`<p class="muted" role="status">${error.detail}</p>`}
    ${estimate && html`<dl class="figures" aria-live="polite">${FIGURES.map(([name, words, format]) => html`<${Figure} key=${name} words=${words} figure=${estimate[name]} format=${format} />`)}</dl>`}
    ${estimate?.problems.map((one) => html`<${Problem} key=${one.code} error=${one} title="This would be refused" />`)}
    ${estimate && html`<details><summary>How these are known</summary>
      <dl class="pairs">${FIGURES.map(([name, words]) => html`<dt key=${name}>${words}</dt><dd>${estimate[name].basis}${estimate[name].note && `: ${estimate[name].note}`}</dd>`)}</dl>
    </details>`}
  </section>`;
}

function Figure({ words, figure, format }) {
  const isRough = figure.value !== null && figure.basis !== "counted";
  return html`<div><dt>${words}</dt><dd>${figure.value === null ? DASH : `${isRough ? "about " : ""}${format(rounded(figure, isRough))}`}<small>${figure.basis}</small></dd></div>`;
}

/** To two digits, where the rest would claim too much. */
const rounded = ({ value }, isRough) => (isRough ? Number(value.toPrecision(2)) : value);
