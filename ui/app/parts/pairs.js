// What an evaluation says of each column beside the first one: a sentence a measure, and its verdict.
import { html } from "./html.js";
import { metricOf, pairWords, SOURCES, VERDICTS } from "./metrics.js";
import { Status } from "./status.js";
import { href } from "../routes.js";

/** A verdict as a coloured word. */
export const Verdict = ({ of }) => html`<${Status} of=${of} kind=${VERDICTS[of] ?? "calm"} />`;

export function Pairs({ id, report, verdicts }) {
  const candidates = [...new Set(report.pairs.map((one) => one.candidate))];
  if (!candidates.length) return null;
  return html`<section class="stack" aria-labelledby="pairs-title">
    <h2 id="pairs-title">Beside ${report.baseline}</h2>
    <div class="columns">${candidates.map((one) => html`<${Candidate} key=${one} id=${id} baseline=${report.baseline} candidate=${one} pairs=${report.pairs} first=${verdicts?.find((pair) => pair.candidate === one)} />`)}</div>
  </section>`;
}

function Candidate({ id, baseline, candidate, pairs, first }) {
  const own = pairs.filter((one) => one.candidate === candidate);
  const shown = own.filter((one) => metricOf(one.metric).isMain);
  const others = own.filter((one) => !metricOf(one.metric).isMain);
  return html`<article class="card pair" aria-label=${`${candidate} beside ${baseline}`}>
    <header><h3 class="break">${candidate}</h3>${first && html`<span class="row small"><span class="muted">by its ${metricOf(first.metric).name.toLowerCase()}</span><${Verdict} of=${first.verdict} /></span>`}</header>
    <${Sentences} pairs=${shown} />
    ${others.length > 0 && html`<details><summary>Length, speed and the rest</summary><${Sentences} pairs=${others} /></details>`}
    <div><a class="button small" aria-label=${`${candidate} and ${baseline}: answers side by side`} href=${href("evaluations", id, "comparison", { baseline, candidate })}>Answers side by side</a></div>
  </article>`;
}

function Sentences({ pairs }) {
  const sources = Object.keys(SOURCES).filter((name) => pairs.some((one) => one.source === name));
  return sources.map((source) => html`<div key=${source} class="stack">
    <h4 class="muted small">${SOURCES[source]}</h4>
    <ul class="verdicts">${pairs.filter((one) => one.source === source).map((one) => html`<li key=${one.metric}><span>${pairWords(one)}</span><${Verdict} of=${one.verdict} /></li>`)}</ul>
  </div>`);
}
