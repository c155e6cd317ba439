// Searches for the best settings: the list, one by its link `#/sweeps/<id>`, and a new one at `#/sweeps/new`.
import { Empty, Loading, Problem } from "../parts/feedback.js";
import { ago, count, DASH, figure, time } from "../parts/format.js";
import { html } from "../parts/html.js";
import { usePages } from "../parts/loading.js";
import { Progress } from "../parts/progress.js";
import { Status } from "../parts/status.js";
import { Pager, Table } from "../parts/table.js";
import { href } from "../routes.js";
import { NewSweep } from "./newsweep.js";
import { Sweep } from "./sweep.js";

export default function Sweeps({ parts: [id] }) {
  if (id === "new") return html`<${NewSweep} />`;
  return id ? html`<${Sweep} key=${id} id=${id} />` : html`<${List} />`;
}

function List() {
  const list = usePages("/fine-tuning/sweeps", {}, { everySeconds: 5 });
  const start = html`<a class="button primary" href=${href("sweeps", "new")}>New search</a>`;
  return html`
    <div class="page-head">
      <div>
        <h1 tabindex="-1">Sweeps</h1>
        <p>Searches for the settings that learn best: many trainings, the hopeless ones ended early, and the best becomes a version.</p>
      </div>
      ${!list.isEmpty && start}
    </div>
    <${Problem} error=${list.error} />
    ${list.isLoading && html`<${Loading} what="sweeps" />`}
    ${list.isEmpty && html`<${Empty} title="No sweeps yet" action=${start}>Where the defaults are not good enough, a search tries learning rates, ranks and more on your documents.<//>`}
    ${list.rows.length > 0 && html`<${Table} caption="Sweeps, newest first" columns=${COLUMNS} rows=${list.rows} rowKey=${(row) => row.id} />`}
    <${Pager} pager=${list.pager} what="sweeps" />
  `;
}

const COLUMNS = [
  { title: "Sweep", isHeading: true, cell: (one) => html`<a href=${href("sweeps", one.id)}>${one.id}</a>` },
  { title: "Adapter", className: "break", cell: (one) => one.adapter },
  { title: "Status", cell: (one) => html`<${Status} of=${one.status} />` },
  { title: "Trials", cell: (one) => html`<${Trials} sweep=${one} />` },
  { title: "Best loss", className: "numeric", cell: (one) => figure(one.best_loss) },
  { title: "Version", className: "numeric", cell: (one) => (one.version ? html`<a href=${href("adapters", one.adapter, { version: one.version })}>${one.version}</a>` : DASH) },
  { title: "Created", className: "nowrap", cell: (one) => html`<time title=${time(one.created_at)}>${ago(one.created_at)}</time>` },
];

function Trials({ sweep: { id, status, num_ended: ended, num_trials: all, error } }) {
  const words = `${count(ended)} of ${count(all)}`;
  if (error) return html`${words} <span class="field-error">${error.code}</span>`;
  if (status !== "running") return words;
  return html`<${Progress} value=${ended / all} label=${`Progress of ${id}`}>${words}<//>`;
}
