// What the gate decided about a new version: in a word, and with the figures that it decided on.
import { count, figure } from "./format.js";
import { html } from "./html.js";
import { range } from "./metrics.js";
import { Status } from "./status.js";

export const GateMark = ({ decision }) => (decision ? html`<${Status} of=${decision.is_promoted ? "live" : "held"} kind=${decision.is_promoted ? "good" : "warn"} />` : null);

/** The decision, its reason, and a line for each rival. */
export function Decision({ decision }) {
  if (!decision) return null;
  return html`<div class="stack">
    <p><strong>${decision.is_promoted ? "The gate let it go live." : "The gate holds it."}</strong> ${decision.reason}</p>
    <${Rivals} decision=${decision} />
    ${decision.notes?.length > 0 && html`<ul class="plain-list">${decision.notes.map((one) => html`<li key=${one} class="break">${one}</li>`)}</ul>`}
  </div>`;
}

export function Rivals({ decision }) {
  const rows = decision?.comparisons ?? [];
  if (!rows.length) return null;
  return html`<ul class="verdicts">${rows.map((one) => html`<li key=${one.rival}>
    <span>Against ${one.rival === "base" ? "the base model" : `version ${one.version}`}: ${figure(one.loss)} to ${figure(one.rival_loss)}, difference ${signed(one.difference.value)}${around(one.difference)}, n ${count(one.difference.num_examples)}</span>
    <${Status} of=${one.is_better ? "better" : "not better"} kind=${one.is_better ? "good" : "warn"} />
  </li>`)}</ul>`;
}

const signed = (value) => `${value > 0 ? "+" : "−"}${figure(Math.abs(value))}`;

function around(interval) {
  const found = range(interval, signed);
  return found ? ` (${found})` : "";
}
