// Monitor: what waits, who works, and how the answers of the last hours came.
import { get } from "../api.js";
import { Chart } from "../parts/chart.js";
import { Empty, Loading, Problem } from "../parts/feedback.js";
import { Field } from "../parts/field.js";
import { ago, count, DASH, duration, figure, percent, plural, short, time } from "../parts/format.js";
import { html, useMemo } from "../parts/html.js";
import { useLoaded } from "../parts/loading.js";
import { Status } from "../parts/status.js";
import { Table } from "../parts/table.js";
import { Versions } from "../parts/versions.js";
import { href, useQuery } from "../routes.js";

const SPANS = [["1", "Last hour"], ["6", "Last 6 hours"], ["24", "Last 24 hours"], ["168", "Last 7 days"], ["720", "Last 30 days"]];

const ms = (value) => (value === null || value === undefined ? DASH : duration(value / 1000));
const whole = (value) => percent(value);
const perSecond = (value) => (value === null || value === undefined ? DASH : short(value));

export default function Monitor() {
  const [hours, setHours] = useQuery("hours", "24");
  const [adapter, setAdapter] = useQuery("adapter");
  const seen = useLoaded((signal) => get("/monitoring", { hours, adapter }, signal), [hours, adapter], { everySeconds: Number(hours) > 24 ? 60 : 5 }); // a month of answers takes seconds to add up
  const status = useLoaded((signal) => get("/fine-tuning/status", {}, signal), [], { everySeconds: 10 });
  const found = seen.data;
  return html`
    <div class="page-head">
      <div>
        <h1 tabindex="-1">Monitor</h1>
        <p>What waits, who works, and how the answers come. It renews itself.</p>
      </div>
    </div>
    <div class="filters" role="group" aria-label="What is shown">
      <${Field} label="Time" type="select" options=${SPANS} value=${hours} onChange=${setHours} />
      <${Field} label="Adapter" value=${adapter} onChange=${setAdapter} placeholder="all answers" />
    </div>
    <${Problem} error=${seen.error} />
    ${status.data?.missing.length > 0 && html`<div class="warn-box" role="status"><ul class="plain-list">${status.data.missing.map((one) => html`<li key=${one}>${one}</li>`)}</ul></div>`}
    ${found === null && !seen.error && html`<${Loading} what="figures" />`}
    ${found && html`
      <${Figures} found=${found} />
      ${found.total.num_answers === 0
        ? html`<${Empty} title="No answers in this time" action=${html`<a class="button primary" href=${href("playground")}>Ask something</a>`}>
            Curves of latency, speed and quality grow here as soon as questions are answered.<//>`
        : html`<${Curves} buckets=${found.buckets} /><${Versions} versions=${found.versions} times=${found.buckets.map((one) => one.at)} />`}
      <${Queues} found=${found} />
      <${Workers} workers=${found.workers} />
    `}
  `;
}

function Figures({ found }) {
  const { total } = found;
  const waiting = found.queues.reduce((sum, one) => sum + one.num_jobs, 0);
  const alive = found.workers.filter((one) => one.alive).length;
  const cells = [
    ["Answers", count(total.num_answers), null],
    ["First token", ms(total.first_token_ms?.p50), total.first_token_ms && `95 of 100 within ${ms(total.first_token_ms.p95)}`],
    ["Whole answer", ms(total.total_ms?.p50), total.total_ms && `95 of 100 within ${ms(total.total_ms.p95)}`],
    ["Tokens per second", perSecond(total.tokens_per_second), "within one answer"],
    ["From the base instead", whole(total.fallback), null],
    ["Thumbs", `${count(total.thumbs_up)} up`, `${count(total.thumbs_down)} down`],
    ["Jobs that wait", count(waiting), found.waiting_questions === null ? "Redis is away" : `${plural(found.waiting_questions, "question")} as well`],
    ["Workers", count(alive), null],
  ];
  return html`<dl class="figures by-four">${cells.map(([name, value, more]) => html`<div key=${name}><dt>${name}</dt><dd>${value}${more && html`<small>${more}</small>`}</dd></div>`)}</dl>`;
}

function Curves({ buckets }) {
  const data = useMemo(() => {
    const xs = buckets.map((one) => one.at);
    const of = (...picks) => [xs, ...picks.map((pick) => buckets.map((one) => pick(one) ?? null))];
    return {
      answers: of((one) => one.num_answers),
      first: of((one) => one.first_token_ms?.p50, (one) => one.first_token_ms?.p95, (one) => one.first_token_ms?.p99),
      total: of((one) => one.total_ms?.p50, (one) => one.total_ms?.p95, (one) => one.total_ms?.p99),
      speed: of((one) => one.tokens_per_second),
      shares: of((one) => one.fallback, (one) => one.truncated, (one) => one.repetition),
      logprob: of((one) => one.mean_logprob),
      thumbs: of((one) => one.thumbs_up, (one) => one.thumbs_down),
    };
  }, [buckets]);
  return html`<div class="columns">${CURVES.map(
    ([key, title, series]) => html`<section key=${key} class="card"><${Chart} title=${title} data=${data[key]} series=${series} isTime height=${190} min=${key === "logprob" ? null : 0} /></section>`,
  )}</div>`;
}

const PERCENTILES = ["Half within", "95 of 100 within", "99 of 100 within"].map((label, i) => ({ label, className: `series-${i + 1}`, format: ms, isSparse: true }));
const counted = (label, number) => ({ label, className: `series-${number}`, format: count });
const line = (label, number, format) => ({ ...counted(label, number), format, isSparse: true }); // there may be no answers between two
const CURVES = [
  ["answers", "Answers", [counted("Answers", 1)]],
  ["first", "Time to the first token", PERCENTILES],
  ["total", "Time to the whole answer", PERCENTILES],
  ["speed", "Tokens per second within an answer", [line("Tokens per second", 1, perSecond)]],
  ["shares", "Signals of quality", [line("From the base instead", 1, whole), line("Cut at their most tokens", 2, whole), line("Repeated words", 3, whole)]],
  ["logprob", "How sure the model was", [line("Mean log-probability", 1, (value) => figure(value, 2))]],
  ["thumbs", "Thumbs", [counted("Up", 1), counted("Down", 2)]],
];

function Queues({ found }) {
  return html`<section class="stack" aria-labelledby="queues-title">
    <h2 id="queues-title">Jobs that wait</h2>
    ${found.queues.length
      ? html`<${Table} caption="Jobs that wait, by kind" rows=${found.queues} rowKey=${(row) => row.kind} columns=${QUEUES} />`
      : html`<p class="muted">None.</p>`}
  </section>`;
}

const QUEUES = [
  { title: "Kind", isHeading: true, cell: (one) => html`<a href=${href("jobs", { kind: one.kind, status: "queued" })}>${one.kind}</a>` },
  { title: "Waiting", className: "numeric", cell: (one) => count(one.num_jobs) },
  { title: "The first has waited", className: "numeric", cell: (one) => duration(Math.round(one.oldest_seconds)) },
];

function Workers({ workers }) {
  return html`<section class="stack" aria-labelledby="workers-title">
    <h2 id="workers-title">Workers</h2>
    ${workers.length
      ? html`<${Table} caption="Workers" rows=${workers} rowKey=${(row) => row.id} columns=${WORKERS} />`
      : html`<p class="muted">None is there. Start the stack with <code>finetuned up</code>.</p>`}
  </section>`;
}

const WORKERS = [
  { title: "Kind", isHeading: true, cell: (one) => one.kind },
  { title: "State", cell: (one) => html`<${Status} of=${one.alive ? (one.busy ? "busy" : "ready") : "gone"} kind=${one.alive ? (one.busy ? "busy" : "good") : "warn"} />` },
  { title: "Does", cell: (one) => html`<${Work} worker=${one} />` },
  { title: "Last seen", className: "nowrap", cell: (one) => html`<time title=${time(one.heartbeat_at)}>${ago(one.heartbeat_at)}</time>` },
  { title: "Process", className: "break", cell: (one) => html`<span class="muted small">${one.id}</span>` },
];

function Work({ worker }) {
  if (worker.job_id) return html`<a href=${href("jobs", worker.job_id)}>${worker.job_id}</a>`;
  if (worker.loaded_models) {
    const models = worker.loaded_models.length ? worker.loaded_models.join(", ") : "no model loaded yet";
    return html`${models}${worker.running_answers !== null && html`<div class="muted small">${plural(worker.running_answers, "answer")} in work, ${count(worker.waiting_answers)} waiting</div>`}`;
  }
  if (worker.indexed_documents !== null) return `${plural(worker.indexed_documents, "document")} indexed${worker.waiting_documents ? `, ${count(worker.waiting_documents)} to go` : ""}`;
  return worker.busy ? "a job of another project" : html`<span class="muted">waits for work</span>`;
}
