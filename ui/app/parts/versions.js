// Who gave the answers: each version's quality over time, with what has drifted.
import { count, DASH, duration, figure, percent } from "./format.js";
import { html } from "./html.js";
import { Status } from "./status.js";
import { Table } from "./table.js";
import { href } from "../routes.js";

const nameOf = (one) => (one.adapter === null ? `${one.model} (base model)` : `${one.adapter}@${one.version}`);

/** `versions` of `GET /monitoring`, and all its buckets' moments, `times`. */
export function Versions({ versions, times }) {
  const drifted = versions.filter((one) => one.drift !== null);
  return html`<section class="stack" aria-labelledby="versions-title">
    <h2 id="versions-title">Answers by version</h2>
    ${drifted.length > 0 && html`<div class="warn-box" role="status"><ul class="plain-list">${drifted.map((one) => html`<li key=${nameOf(one)}><strong>${nameOf(one)}</strong>: ${one.drift}</li>`)}</ul></div>`}
    <${Table} caption="Answers by version" rows=${versions} rowKey=${nameOf} columns=${columnsOver(times)} />
    <p class="muted small">Means over the answers, ± one standard error; none of them proves an answer right. A version has drifted where its last 24 hours are worse than its first days by what matters and beyond chance.</p>
  </section>`;
}

const columnsOver = (times) => [
  { title: "Version", isHeading: true, cell: (one) => html`${one.adapter === null ? nameOf(one) : html`<a href=${href("adapters", one.adapter)}>${nameOf(one)}</a>`} ${one.drift !== null && html`<${Status} of="drifted" kind="warn" />`}` },
  { title: "Answers", className: "numeric", cell: (one) => html`${count(one.total.num_answers)}<${Spark} values=${over(times, one, (part) => part.num_answers)} />` },
  { title: "Log-probability", className: "numeric", cell: (one) => html`${withError(one.total.mean_logprob, one.total.mean_logprob_error)}<${Spark} values=${over(times, one, (part) => part.mean_logprob)} />` },
  { title: "Repeated words", className: "numeric", cell: (one) => html`${percent(one.total.repetition, 1)}<${Spark} values=${over(times, one, (part) => part.repetition)} />` },
  { title: "Cut", className: "numeric", cell: (one) => html`${percent(one.total.truncated, 1)}<${Spark} values=${over(times, one, (part) => part.truncated)} />` },
  { title: "Thumbs", className: "numeric nowrap", cell: ({ total }) => `${count(total.thumbs_up)} up, ${count(total.thumbs_down)} down` },
  { title: "In place of an adapter", className: "numeric", cell: (one) => (one.adapter === null ? percent(one.total.fallback) : DASH) },
  { title: "Whole answer", className: "numeric", cell: (one) => duration(one.total.total_ms / 1000) },
];

const withError = (value, error) => (error === null ? figure(value, 2) : `${figure(value, 2)} ± ${figure(error, 2)}`);

/** A value for each moment, null where the version gave no answer. */
function over(times, one, pick) {
  const known = new Map(one.buckets.map((part) => [part.at, pick(part)]));
  return times.map((at) => known.get(at) ?? null);
}

/** A curve without axes: how a figure went, from the lowest of its values to the highest. */
function Spark({ values }) {
  const known = values.flatMap((value, i) => (value === null ? [] : [[i, value]]));
  if (known.length < 2) return null;
  const low = Math.min(...known.map(([, value]) => value));
  const room = Math.max(...known.map(([, value]) => value)) - low || 1;
  const points = known.map(([i, value]) => `${((i / (values.length - 1)) * 100).toFixed(1)},${(22 - ((value - low) / room) * 20).toFixed(1)}`);
  return html`<svg class="spark series-1" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true" focusable="false"><polyline points=${points.join(" ")} /></svg>`;
}
