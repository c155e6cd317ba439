// Jobs: a live list with filters, and one job by its link `#/jobs/<id>`.
import { Empty, Loading, Problem } from "../parts/feedback.js";
import { ago, between, duration, figure, percent, time } from "../parts/format.js";
import { Field } from "../parts/field.js";
import { html } from "../parts/html.js";
import { usePages } from "../parts/loading.js";
import { Progress } from "../parts/progress.js";
import { Status } from "../parts/status.js";
import { Pager, Table } from "../parts/table.js";
import { href, useQuery } from "../routes.js";
import { Job } from "./job.js";

const KINDS = [["", "All kinds"], ["training", "Training"], ["setup", "Setup"], ["evaluation", "Evaluation"], ["sweep", "Sweep"], ["batch", "Batch"], ["import", "Import"], ["export", "Export"]];
const STATUSES = [["", "Any status"], "queued", "running", "pausing", "paused", "succeeded", "failed", "cancelled"];

export default function Jobs({ parts }) {
  return parts.length ? html`<${Job} key=${parts[0]} id=${parts[0]} />` : html`<${List} />`;
}

function List() {
  const [kind, setKind] = useQuery("kind");
  const [status, setStatus] = useQuery("status");
  const list = usePages("/fine-tuning/jobs", { kind, status }, { everySeconds: 2 });
  const isFiltered = Boolean(kind || status);
  return html`
    <div class="page-head">
      <div>
        <h1 tabindex="-1">Jobs</h1>
        <p>Everything that takes a while: it goes on when this page is closed, and after a crash.</p>
      </div>
      <a class="button primary" href=${href("train")}>New training</a>
    </div>
    <div class="filters" role="group" aria-label="Filters">
      <${Field} label="Kind" type="select" options=${KINDS} value=${kind} onChange=${setKind} />
      <${Field} label="Status" type="select" options=${STATUSES} value=${status} onChange=${setStatus} />
      ${isFiltered && html`<a class="button plain" href=${href("jobs")}>Show all</a>`}
    </div>
    <${Problem} error=${list.error} />
    ${list.isLoading && html`<${Loading} what="jobs" />`}
    ${list.isEmpty && isFiltered && html`<${Empty} title="No such jobs">None of the jobs is of this kind and status.<//>`}
    ${list.isEmpty && !isFiltered && html`<${Empty} title="No jobs yet" action=${html`<a class="button primary" href=${href("train")}>Train an adapter</a>`}>
      A training, and the setup that makes its dataset, appear here as soon as you start one.<//>`}
    ${list.rows.length > 0 && html`<${Table} caption="Jobs, newest first" columns=${COLUMNS} rows=${list.rows} rowKey=${(row) => row.id} />`}
    <${Pager} pager=${list.pager} what="jobs" />
  `;
}

const COLUMNS = [
  { title: "Job", isHeading: true, cell: (job) => html`<a href=${href("jobs", job.id)}>${job.id}</a>` },
  { title: "Kind", cell: (job) => job.kind },
  { title: "Adapter", cell: (job) => job.adapter ?? "" },
  { title: "Status", cell: (job) => html`<${Status} of=${job.status} />` },
  { title: "Progress", cell: (job) => html`<${Short} job=${job} />` },
  { title: "Loss", className: "numeric", cell: (job) => (job.progress.train_loss === null ? "" : figure(job.progress.train_loss)) },
  { title: "Created", className: "nowrap", cell: (job) => html`<time title=${time(job.created_at)}>${ago(job.created_at)}</time>` },
];

/** How far a job is, in one line. */
function Short({ job }) {
  const { progress, status } = job;
  if (status === "failed") return html`<span class="field-error">${job.error?.code}</span>`;
  if (status === "queued") return html`<span class="muted">${job.queue_position ? `${job.queue_position} before it` : job.waits_for ? "waits for its setup" : "next"}</span>`;
  if (status === "succeeded" || status === "cancelled") {
    return html`<span class="muted">${job.started_at && job.finished_at ? between(job.started_at, job.finished_at) : ""}</span>`;
  }
  const [done, all] = progress.total_steps ? [progress.step, progress.total_steps] : [progress.documents_done, progress.documents];
  if (!all) return html`<span class="muted">${progress.phase ?? "starting"}</span>`;
  const left = typeof progress.seconds_left === "number" && status === "running" ? ` · ${duration(progress.seconds_left)} left` : "";
  return html`<${Progress} value=${done / all} label=${`Progress of ${job.id}`}>${percent(done / all)}${left}<//>`;
}
