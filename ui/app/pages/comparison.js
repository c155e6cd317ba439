// Two columns of an evaluation: the answers that got better and those that got worse, side by side with what was wanted.
import { get } from "../api.js";
import { Loading, Problem } from "../parts/feedback.js";
import { Field } from "../parts/field.js";
import { count, DASH } from "../parts/format.js";
import { html } from "../parts/html.js";
import { useLoaded } from "../parts/loading.js";
import { isKnown, metricOf, pairWords, SOURCES } from "../parts/metrics.js";
import { Verdict } from "../parts/pairs.js";
import { href, useQuery } from "../routes.js";

const MOST = 10;
const UNSORTED = ["length", "prompt_tokens"]; // neither more nor less of them is better

export function Comparison({ id }) {
  const [baseline, setBaseline] = useQuery("baseline");
  const [candidate, setCandidate] = useQuery("candidate");
  const [source, setSource] = useQuery("source");
  const [metric, setMetric] = useQuery("metric");
  const known = useLoaded((signal) => get(`/fine-tuning/evaluations/${encodeURIComponent(id)}`, {}, signal), [id]);
  const labels = known.data?.columns ?? [];
  const first = baseline || known.data?.report?.baseline || labels[0];
  const second = candidate || labels.find((one) => one !== first);
  const query = { evaluation_id: id, baseline: first, candidate: second, source, metric, limit: MOST };
  const canAsk = Boolean(first && second);
  const found = useLoaded((signal) => (canAsk ? get("/fine-tuning/comparisons", query, signal) : Promise.resolve(null)), [JSON.stringify(query)]);
  const comparison = found.data;
  return html`
    <div class="page-head"><div>
      <p class="small"><a href=${href("evaluations", id)}>The evaluation</a></p>
      <h1 tabindex="-1">Answers side by side</h1>
      <p>The ${MOST} that got better and the ${MOST} that got worse by the most, of the same examples.</p>
    </div></div>
    <${Problem} error=${known.error} />
    ${!known.data && !known.error && html`<${Loading} what="the evaluation" />`}
    ${known.data && !second && html`<p class="muted">This evaluation has one column only: there is nothing to compare.</p>`}
    ${canAsk && known.data && html`
      <div class="filters" role="group" aria-label="What is compared">
        <${Field} label="Baseline" type="select" options=${labels} value=${first} onChange=${setBaseline} />
        <${Field} label="Candidate" type="select" options=${labels} value=${second} onChange=${setCandidate} />
        <${Field} label="Examples" type="select" options=${sourcesOf(known.data)} value=${source || comparison?.source || ""} onChange=${setSource} />
        <${Field} label="Measure" type="select" options=${metricsOf(known.data)} value=${metric || comparison?.metric || ""} onChange=${setMetric} />
      </div>
      <${Problem} error=${found.error} />
      ${!comparison && !found.error && html`<${Loading} what="the answers" />`}
      ${comparison && html`<${Shown} comparison=${comparison} />`}`}
  `;
}

const sourcesOf = ({ report }) => Object.entries(SOURCES).filter(([name]) => report?.columns.some((one) => one.source === name));

function metricsOf({ report }) {
  const names = new Set(report?.columns.flatMap((one) => Object.keys(one.figures)));
  return [...names].filter((name) => !UNSORTED.includes(name)).map((name) => [name, metricOf(name).name]);
}

function Shown({ comparison }) {
  const { pairs, metric, source, better, worse } = comparison;
  const pair = pairs.find((one) => one.metric === metric && one.source === source);
  return html`
    ${pair && html`<p class="row"><span>${pairWords(pair)}</span><${Verdict} of=${pair.verdict} /></p>`}
    <${Answers} title="Got better" rows=${better} comparison=${comparison} none="None got better." />
    <${Answers} title="Got worse" rows=${worse} comparison=${comparison} none="None got worse." />
  `;
}

function Answers({ title, rows, comparison, none }) {
  return html`<section class="stack" aria-label=${title}>
    <h2>${title} <span class="muted">${count(rows.length)}</span></h2>
    ${!rows.length && html`<p class="muted">${none}</p>`}
    <ol class="turns">${rows.map((one) => html`<li key=${one.number}><${Example} example=${one} comparison=${comparison} /></li>`)}</ol>
  </section>`;
}

function Example({ example, comparison }) {
  const { metric, baseline, candidate } = comparison;
  const { format, name } = metricOf(metric);
  const value = (one) => (isKnown(one) ? `${name} ${format(one)}` : "");
  return html`<article class="card" aria-label=${`Example ${example.number}`}>
    <p class="hint">Example ${example.number}</p>
    <${Asked} question=${example.question} wanted=${example.wanted} />
    <div class="answers">
      <${Given} label=${baseline} text=${example.baseline_answer} note=${value(example.baseline_value)} />
      <${Given} label=${candidate} text=${example.candidate_answer} note=${value(example.candidate_value)} />
    </div>
  </article>`;
}

/** What was asked and what was wanted: text, and nothing else, whatever is in it. */
export const Asked = ({ question, wanted }) => html`
  ${question && html`<p class="question"><span class="unseen">Question: </span>${question}</p>`}
  <p class="words"><span class="hint">Wanted </span>${wanted ?? DASH}</p>
`;

/** What one column answered. */
export const Given = ({ label, text, note = "", error = null }) => html`<div class="given">
  <p class="row"><strong class="break">${label}</strong>${note && html`<span class="muted small">${note}</span>`}</p>
  ${error ? html`<p class="field-error">${error}</p>` : text === null || text === undefined ? html`<p class="muted">It was not asked: only its loss was measured.</p>` : html`<p class="words">${text || html`<span class="muted">It answered with nothing.</span>`}</p>`}
</div>`;
