// Every example of an evaluation with every column's answer, a page at a time.
import { get } from "../api.js";
import { Empty, Loading, Problem } from "../parts/feedback.js";
import { Sources } from "../parts/figures.js";
import { html } from "../parts/html.js";
import { useLoaded, usePages } from "../parts/loading.js";
import { METRICS, metricOf, SOURCES } from "../parts/metrics.js";
import { Pager } from "../parts/table.js";
import { href, useQuery } from "../routes.js";
import { Asked, Given } from "./comparison.js";

const SHOWN = ["loss", "token_accuracy", "exact_match", "f1", "judged"]; // beside each answer

export function Examples({ id }) {
  const path = `/fine-tuning/evaluations/${encodeURIComponent(id)}`;
  const [chosen, setChosen] = useQuery("source");
  const known = useLoaded((signal) => get(path, {}, signal), [path]);
  const sources = Object.keys(SOURCES).filter((name) => known.data?.report?.columns.some((one) => one.source === name));
  const source = sources.includes(chosen) ? chosen : "";
  const list = usePages(`${path}/examples`, { source }, { limit: 10 });
  return html`
    <div class="page-head"><div>
      <p class="small"><a href=${href("evaluations", id)}>The evaluation</a></p>
      <h1 tabindex="-1">Every example</h1>
      <p>What was asked, what was wanted, and what each column made of it.</p>
    </div></div>
    ${sources.length > 1 && html`<div class="row"><button type="button" class="small choice" aria-pressed=${String(!source)} onClick=${() => setChosen("")}>All</button><${Sources} names=${sources} chosen=${source} onChoose=${setChosen} /></div>`}
    <${Problem} error=${list.error ?? known.error} />
    ${list.isLoading && html`<${Loading} what="examples" />`}
    ${list.isEmpty && html`<${Empty} title="No examples">There are none of this kind.<//>`}
    <ol class="turns" aria-label="Examples">${list.rows.map((row) => html`<li key=${row.number}><${Row} row=${row} /></li>`)}</ol>
    <${Pager} pager=${list.pager} what="examples" />
  `;
}

function Row({ row }) {
  return html`<article class="card" aria-label=${`Example ${row.number}`}>
    <p class="hint">Example ${row.number} · ${SOURCES[row.source] ?? row.source}</p>
    <${Asked} question=${row.question} wanted=${row.wanted} />
    <div class="answers">${Object.entries(row.answers).map(([label, one]) => html`<${Given} key=${label} label=${label} text=${one.text} error=${one.error} note=${noteOf(one.metrics)} />`)}</div>
  </article>`;
}

const noteOf = (metrics) =>
  Object.keys(METRICS)
    .filter((name) => SHOWN.includes(name) && name in metrics)
    .map((name) => `${metricOf(name).name} ${metricOf(name).format(metrics[name])}`)
    .join(" · ");
