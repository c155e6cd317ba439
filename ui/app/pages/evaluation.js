// One evaluation: how far it is, then who answers better and how sure that is.
import { address, get, post } from "../api.js";
import { Chain, chainOf } from "../parts/chain.js";
import { Confirm } from "../parts/dialog.js";
import { attempt, Loading, Problem } from "../parts/feedback.js";
import { Figures } from "../parts/figures.js";
import { ENDED, Events, Lost, useLog } from "../parts/following.js";
import { duration, plural, short, time } from "../parts/format.js";
import { html, useEffect, useState } from "../parts/html.js";
import { useLoaded } from "../parts/loading.js";
import { Pairs } from "../parts/pairs.js";
import { labelOf } from "../parts/schema.js";
import { Status } from "../parts/status.js";
import { Table } from "../parts/table.js";
import { href } from "../routes.js";

const READ_EVERY_SECONDS = 2;
const BEFORE_ITS_REPORT = "There is no report yet: it comes when every column has been measured.";

export function Evaluation({ id }) {
  const path = `/fine-tuning/evaluations/${encodeURIComponent(id)}`;
  const [hasEnded, setEnded] = useState(false);
  const every = { everySeconds: hasEnded ? null : READ_EVERY_SECONDS };
  const loaded = useLoaded((signal) => get(path, {}, signal), [id], every);
  const chain = useLoaded((signal) => chainOf(id, signal), [id], every);
  const { log, connection } = useLog(`/fine-tuning/jobs/${encodeURIComponent(id)}`, () => (loaded.reload(), chain.reload()));
  const evaluation = loaded.data;
  useEffect(() => setEnded(Boolean(evaluation && ENDED.includes(evaluation.status))), [evaluation?.status]);
  return html`
    <${Head} id=${id} evaluation=${evaluation} onDone=${loaded.reload} />
    <${Problem} error=${loaded.error} />
    ${!evaluation && !loaded.error && html`<${Loading} what="the evaluation" />`}
    ${evaluation && html`
      <${Problem} error=${evaluation.error} title="This evaluation failed" />
      <${Lost} connection=${connection} />
      ${chain.data && !(hasEnded && evaluation.report) && html`<${Chain} jobs=${chain.data} />`}
      ${evaluation.report ? html`<${Report} id=${id} report=${evaluation.report} verdicts=${evaluation.verdicts} />` : !hasEnded && html`<p class="muted">${BEFORE_ITS_REPORT}</p>`}
      ${evaluation.report ? html`<details><summary>How it was measured</summary>${chain.data && html`<${Chain} jobs=${chain.data} />`}<${Events} log=${log} /></details>` : html`<${Events} log=${log} />`}
    `}
  `;
}

function Head({ id, evaluation, onDone }) {
  const [isAsking, setAsking] = useState(false);
  const cancel = () => post(`/fine-tuning/jobs/${encodeURIComponent(id)}/cancel`).then(onDone);
  const isAdvice = evaluation?.purpose === "advice";
  const isOpen = evaluation && !ENDED.includes(evaluation.status);
  return html`<div class="page-head">
    <div>
      <p class="small"><a href=${href("evaluations")}>Evaluations</a></p>
      <h1 tabindex="-1" class="break">${isAdvice ? "Tune, RAG, both or neither?" : html`Evaluation${evaluation?.adapter ? html` of <em>${evaluation.adapter}</em>` : null}`}</h1>
      <p class="row">${evaluation && html`<${Status} of=${evaluation.status} /><span>${time(evaluation.created_at)}</span>`}<code class="break">${id}</code></p>
    </div>
    <div class="actions">
      ${evaluation?.report && html`
        <a class="button" href=${href("evaluations", id, "comparison")}>Answers side by side</a>
        <a class="button" href=${href("evaluations", id, "examples")}>Every example</a>
        <a class="button plain" href=${address(`/fine-tuning/evaluations/${id}/report`, { format: "markdown" })} download=${`${id}.md`}>Markdown</a>
        <a class="button plain" href=${address(`/fine-tuning/evaluations/${id}/report`, { format: "html" })} download=${`${id}.html`}>HTML</a>`}
      ${isOpen && html`<button type="button" class="danger" onClick=${() => setAsking(true)}>Cancel</button>`}
    </div>
    ${isAsking && html`<${Confirm} title="Cancel this evaluation?" action="Cancel it" danger onClose=${() => setAsking(false)} onConfirm=${cancel}>
      <p>It ends without a report. What was trained stays.</p>
    <//>`}
  </div>`;
}

function Report({ id, report, verdicts }) {
  const { recommendation, warnings, notes } = report;
  return html`
    ${recommendation && html`<${Recommendation} of=${recommendation} />`}
    ${warnings.length > 0 && html`<section class="warn-box" aria-label="Warnings"><h2>${plural(warnings.length, "warning")}</h2><ul class="plain-list">${warnings.map((one) => html`<li key=${one} class="break">${one}</li>`)}</ul></section>`}
    <${Pairs} id=${id} report=${report} verdicts=${verdicts} />
    <${Figures} report=${report} />
    <${Costs} costs=${report.costs} />
    ${notes.length > 0 && html`<section class="card" aria-labelledby="notes-title"><h2 id="notes-title">Notes</h2><ul class="plain-list">${notes.map((one) => html`<li key=${one} class="break">${one}</li>`)}</ul></section>`}
    ${report.judge && html`<details class="card"><summary>The judge</summary><dl class="pairs">${Object.entries(report.judge).map(([name, value]) => html`<dt key=${`${name}-t`}>${labelOf(name)}</dt><dd key=${name}>${typeof value === "object" ? JSON.stringify(value) : String(value)}</dd>`)}</dl></details>`}
  `;
}

const CHOICES = { tune: "Tune", rag: "Answer from the documents (RAG)", both: "Both: tune, and answer from the documents", neither: "Neither: the base model is as good", "too few questions to tell": "Too few questions to tell" };

function Recommendation({ of }) {
  return html`<section class="card recommended" aria-labelledby="recommended-title">
    <h2 id="recommended-title">${CHOICES[of.choice] ?? of.choice}</h2>
    <p>${of.summary}</p>
    <ol class="reasons">${of.reasons.map((one) => html`<li key=${one} class="break">${one}</li>`)}</ol>
  </section>`;
}

const UNITS = [["_seconds", (value) => duration(value)], ["seconds", (value) => duration(value)], ["_ms", (value) => duration(value / 1000)]];

function cost(name, value) {
  if (typeof value !== "number") return "";
  if (value === 0) return "none";
  return (UNITS.find(([end]) => name.endsWith(end))?.[1] ?? short)(value);
}

/** What each column costs: seconds of training and the like. */
function Costs({ costs }) {
  const labels = Object.keys(costs);
  const names = [...new Set(labels.flatMap((one) => Object.keys(costs[one])))];
  if (!names.length) return null;
  const columns = [{ title: "Column", isHeading: true, cell: (label) => label }, ...names.map((name) => ({ title: labelOf(name.replace(/_(ms|seconds)$/, "")), className: "numeric", cell: (label) => cost(name, costs[label][name]) }))];
  return html`<section class="stack" aria-labelledby="costs-title">
    <h2 id="costs-title">What it costs</h2>
    <${Table} caption="What each column costs" rows=${labels} rowKey=${(label) => label} columns=${columns} />
  </section>`;
}
