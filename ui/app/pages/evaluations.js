// Evaluations: the list, and one by its link `#/evaluations/<id>`, with its comparison and its examples.
import { Empty, Loading, Problem } from "../parts/feedback.js";
import { Field } from "../parts/field.js";
import { ago, count, DASH, plural, time } from "../parts/format.js";
import { html } from "../parts/html.js";
import { usePages } from "../parts/loading.js";
import { Verdict } from "../parts/pairs.js";
import { Status } from "../parts/status.js";
import { Pager, Table } from "../parts/table.js";
import { href, useQuery } from "../routes.js";
import { Comparison } from "./comparison.js";
import { Evaluation } from "./evaluation.js";
import { Examples } from "./examples.js";

const INSIDE = { comparison: Comparison, examples: Examples };

export default function Evaluations({ parts: [id, inside] }) {
  const shown = id === undefined ? List : (INSIDE[inside] ?? Evaluation);
  return html`<${shown} key=${`${id}/${inside}`} id=${id} />`;
}

function List() {
  const [adapter, setAdapter] = useQuery("adapter");
  const list = usePages("/fine-tuning/evaluations", { adapter }, { everySeconds: 5 });
  const start = html`<a class="button primary" href=${href("adapters")}>Evaluate an adapter</a>`;
  return html`
    <div class="page-head">
      <div>
        <h1 tabindex="-1">Evaluations</h1>
        <p>Who answers better, on the same examples: the base model, versions, and what is found in the documents. One comes by itself after every training.</p>
      </div>
      <div class="actions">${!list.isEmpty && start}<a class="button" href=${href("advice")}>Tune, RAG, both or neither?</a></div>
    </div>
    ${!(list.isEmpty && !adapter) && html`<div class="filters"><${Field} label="Adapter" type="search" value=${adapter} onChange=${setAdapter} placeholder="all of them" /></div>`}
    <${Problem} error=${list.error} />
    ${list.isLoading && html`<${Loading} what="evaluations" />`}
    ${list.isEmpty && adapter && html`<${Empty} title="No such evaluations">None is of an adapter that is called “${adapter}”.<//>`}
    ${list.isEmpty && !adapter && html`<${Empty} title="No evaluations yet" action=${start}>Compare a version with the base model before you trust it: each evaluation says what got better, what got worse, and how sure that is.<//>`}
    ${list.rows.length > 0 && html`<${Table} caption="Evaluations, newest first" columns=${COLUMNS} rows=${list.rows} rowKey=${(row) => row.id} />`}
    <${Pager} pager=${list.pager} what="evaluations" />
  `;
}

const WHY = { asked: "asked for", training: "after a training", advice: "advice" };

const COLUMNS = [
  { title: "When", isHeading: true, className: "nowrap", cell: (one) => html`<a href=${href("evaluations", one.id)} title=${time(one.created_at)}>${ago(one.created_at)}</a>` },
  { title: "Adapter", className: "break", cell: (one) => (one.adapter ? html`<a href=${href("adapters", one.adapter)}>${one.adapter}</a>` : DASH) },
  { title: "Who is compared", className: "break", cell: (one) => html`${one.columns.join(", ")}<div class="muted small">${WHY[one.purpose] ?? one.purpose}</div>` },
  { title: "Status", cell: (one) => html`<${Status} of=${one.status} />` },
  { title: "It says", cell: (one) => html`<${Short} evaluation=${one} />` },
];

/** What came of it, in a few words. */
function Short({ evaluation }) {
  const { error, recommendation, verdicts, warnings, status } = evaluation;
  if (error) return html`<span class="field-error">${error.code}</span>`;
  if (status !== "succeeded") return html`<span class="muted">${DASH}</span>`;
  return html`<div>
    ${recommendation && html`<strong>${recommendation.choice}</strong>`}
    ${verdicts?.map((one) => html`<div key=${one.candidate} class="small break">${one.candidate} <${Verdict} of=${one.verdict} /></div>`)}
    ${warnings?.length > 0 && html`<div class="small" title=${warnings.join(" ")}><span class="status warn">${count(warnings.length)} ${plural(warnings.length, "warning").replace(/^\S+ /, "")}</span></div>`}
  </div>`;
}
