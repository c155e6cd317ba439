// How far something is: a bar with its words. Unknown: `value` null.
import { html } from "./html.js";

export function Progress({ value, max = 1, label, children = null }) {
  const known = typeof value === "number";
  return html`<div class="progress">
    <progress aria-label=${label} max=${max} value=${known ? value : undefined}></progress>
    ${children && html`<span class="progress-words">${children}</span>`}
  </div>`;
}
