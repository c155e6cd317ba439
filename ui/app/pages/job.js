// One job: how far it is, its curves as they grow, what was decided and why, and what can be done with it.
import { get, post } from "../api.js";
import { Chart } from "../parts/chart.js";
import { Confirm } from "../parts/dialog.js";
import { attempt, Loading, Problem } from "../parts/feedback.js";
import { ENDED, Events, Lost, useLog } from "../parts/following.js";
import { between, bytes, count, DASH, duration, figure, percent, plural, short } from "../parts/format.js";
import { html, useEffect, useState } from "../parts/html.js";
import { useLoaded } from "../parts/loading.js";
import { Progress } from "../parts/progress.js";
import { Status } from "../parts/status.js";
import { useStored } from "../parts/stored.js";
import { href } from "../routes.js";

const READ_EVERY_SECONDS = 2;

export function Job({ id }) {
  const path = `/fine-tuning/jobs/${encodeURIComponent(id)}`;
  const [hasEnded, setEnded] = useState(false);
  const loaded = useLoaded((signal) => get(path, {}, signal), [id], { everySeconds: hasEnded ? null : READ_EVERY_SECONDS });
  const { log, connection } = useLog(path, loaded.reload);
  const job = loaded.data;
  useEffect(() => setEnded(Boolean(job && ENDED.includes(job.status))), [job?.status]);
  return html`
    <div class="page-head">
      <div>
        <p class="small"><a href=${href("jobs")}>All jobs</a></p>
        <h1 tabindex="-1" class="break">${job ? (TITLES[job.kind] ?? job.kind) : "Job"}${job?.adapter ? html` of <em>${job.adapter}</em>` : null}</h1>
        <p class="row">${job && html`<${Status} of=${job.status} />`}<code class="break">${id}</code></p>
      </div>
      ${job && html`<${Actions} job=${job} path=${path} onDone=${loaded.setData} />`}
    </div>
    <${Problem} error=${loaded.error} />
    ${!job && !loaded.error && html`<${Loading} what="the job" />`}
    ${job && html`<${Body} job=${job} log=${log} connection=${connection} />`}
  `;
}

function Body({ job, log, connection }) {
  return html`
    <${Problem} error=${job.error && { detail: job.error.detail, code: job.error.code }} title="This job failed">
      ${job.error?.code === "setup_failed" && job.waits_for && html`<p><a href=${href("jobs", job.waits_for)}>Look at the job that it waited for</a></p>`}
    <//>
    <${Lost} connection=${connection} />
    <${Where} job=${job} />
    ${job.kind === "training" && html`<${Curves} log=${log} />`}
    <${Result} job=${job} />
    <${Events} log=${log} />
  `;
}

const TITLES = { setup: "Setup", training: "Training", evaluation: "Evaluation", sweep: "Sweep", batch: "Batch", import: "Import", export: "Export" };

const PAGES = { evaluation: "evaluations", sweep: "sweeps" }; // kinds that have a page of their own

function Actions({ job, path, onDone }) {
  const [isAsking, setAsking] = useState(false);
  const act = (what, done) => attempt(async () => onDone(await post(`${path}/${what}`)), done);
  const canPause = ["training", "batch"].includes(job.kind);
  return html`<div class="actions">
    ${PAGES[job.kind] && html`<a class="button primary" href=${href(PAGES[job.kind], job.id)}>What it found</a>`}
    ${canPause && ["queued", "running"].includes(job.status) && html`<button type="button" onClick=${() => act("pause", "It pauses once it has kept what it has.")}>Pause</button>`}
    ${job.status === "paused" && html`<button type="button" class="primary" onClick=${() => act("resume", "It is queued again, and goes on where it stopped.")}>Resume</button>`}
    ${!ENDED.includes(job.status) && html`<button type="button" class="danger" onClick=${() => setAsking(true)}>Cancel</button>`}
    ${job.status === "failed" && html`<a class="button primary" href=${href("train")}>Train again</a>`}
    ${isAsking &&
    html`<${Confirm} title="Cancel this job?" action="Cancel the job" danger onClose=${() => setAsking(false)} onConfirm=${async () => onDone(await post(`${path}/cancel`))}>
      <p>It ends, and so do jobs that wait for it. Nothing is published. To go on later, pause it instead.</p>
    <//>`}
  </div>`;
}

/** How far it is. */
function Where({ job }) {
  const { progress, status } = job;
  const [done, all] = progress.total_steps ? [progress.step ?? 0, progress.total_steps] : [progress.documents_done ?? 0, progress.documents ?? 0];
  const unit = progress.total_steps ? (job.kind === "batch" ? "line" : "step") : "document";
  const isOpen = !ENDED.includes(status);
  const words = all ? `${count(done)} of ${plural(all, unit)}${typeof progress.seconds_left === "number" && status === "running" ? `, about ${duration(progress.seconds_left)} left` : ""}` : (progress.phase ?? "starting");
  return html`<section class="stack" aria-label="Progress">
    ${isOpen && status !== "queued" && html`<${Progress} value=${all ? done / all : null} label="Progress of this job">${words}<//>`}
    ${status === "queued" && html`<p class="hint-box">${queued(job)}</p>`}
    <dl class="figures">
      ${job.kind === "training" ? html`<${TrainingFigures} job=${job} />` : all ? html`<${Figure} name=${`${unit}s`}>${count(done)} <small>of ${count(all)}</small><//>` : null}
      <${Figure} name="Took">${job.started_at ? between(job.started_at, job.finished_at ?? undefined) : DASH}<//>
      <${Figure} name="Attempt">${job.attempt || DASH}<//>
    </dl>
  </section>`;
}

function queued(job) {
  if (job.queue_position) return `${plural(job.queue_position, "job")} of its kind ${job.queue_position === 1 ? "runs" : "run"} before it.`;
  if (job.waits_for) return html`It waits for <a href=${href("jobs", job.waits_for)}>its setup job</a>, which makes the dataset.`;
  return "It is next, as soon as a worker is free.";
}

const Figure = ({ name, children }) => html`<div><dt>${name}</dt><dd>${children}</dd></div>`;

function TrainingFigures({ job }) {
  const { progress } = job;
  const published = job.result?.metrics ?? {};
  const heldOut = published.validation_loss ?? progress.validation_loss;
  return html`
    <${Figure} name="Step">${count(progress.step)} ${progress.total_steps ? html`<small>of ${count(progress.total_steps)}</small>` : null}<//>
    ${!ENDED.includes(job.status) && html`<${Figure} name="Time left">${job.status === "running" ? duration(progress.seconds_left) : DASH}<//>`}
    <${Figure} name="Loss">${figure(published.train_loss ?? progress.train_loss)}<//>
    <${Figure} name="Held-out loss">${figure(heldOut)}${published.base_loss && html` <small>base ${figure(published.base_loss)}</small>`}<//>
    <${Figure} name="Speed">${progress.tokens_per_second ? html`${count(Math.round(progress.tokens_per_second))} <small>tokens/s</small>` : DASH}<//>
    <${Figure} name="Memory">${bytes(progress.memory_bytes)} ${progress.peak_memory_bytes ? html`<small>peak ${bytes(progress.peak_memory_bytes)}</small>` : null}<//>
  `;
}

const LOSSES = [
  { label: "Training loss", className: "series-1" },
  { label: "Held-out loss", className: "series-2", isSparse: true },
];
const OTHERS = {
  learning_rate: ["Learning rate", { label: "Learning rate", className: "series-3", format: short }],
  tokens_per_second: ["Speed", { label: "Tokens per second", className: "series-1", format: (value) => count(Math.round(value)) }],
  memory_bytes: ["Memory", { label: "Memory", className: "series-2", format: bytes }],
  gradient_norm: ["Gradient", { label: "Gradient norm", className: "series-3" }],
};

function Curves({ log }) {
  const [other, setOther] = useStored("job-curve", "learning_rate");
  if (!log.latest && !log.heldOut.data[0].length) return null;
  const [title, series] = OTHERS[other];
  return html`<div class="columns">
    <section class="card" aria-label="Losses"><${Chart} title="Loss" data=${log.losses} series=${LOSSES} /></section>
    <section class="card" aria-label="Other numbers">
      <div class="tabs small" role="group" aria-label="Which number">
        ${Object.entries(OTHERS).map(([name, [words]]) => html`<button key=${name} type="button" class="small" aria-pressed=${String(name === other)} onClick=${() => setOther(name)}>${words}</button>`)}
      </div>
      <${Chart} key=${other} title=${title} isTitleShown=${false} data=${log.curve(other)} series=${[series]} height=${228} />
    </section>
  </div>`;
}

function Result({ job }) {
  const { result } = job;
  if (!result) return null;
  if (job.kind === "training" && result.version) return html`<section class="card" aria-label="Result">
    <h2>Published as ${result.adapter}@${result.version}</h2>
    <p>${comparison(result.metrics)}</p>
    <div class="actions">
      <a class="button primary" href=${href("playground", { model: `${result.adapter}@${result.version}`, against: job.model })}>Ask it</a>
      <a class="button" href=${href("adapters", result.adapter)}>Look at its versions</a>
    </div>
  </section>`;
  if (job.kind !== "setup") return null;
  const failed = result.failed_documents ?? [];
  return html`<section class="card" aria-label="Result">
    <h2>Dataset</h2>
    <dl class="pairs">
      <dt>Examples</dt><dd>${count(result.train_examples)} to learn from, ${count(result.validation_examples)} held out</dd>
      <dt>Tokens</dt><dd>${count(result.tokens)}, ${percent(result.supervised_share)} of them learned</dd>
      <dt>Chunks</dt><dd>${count(result.chunks)} of ${plural(result.documents, "document")}</dd>
    </dl>
    ${failed.length > 0 && html`<h3>Left out</h3><ul class="plain-list">${failed.map((one) => html`<li key=${one.filename ?? one}><span class="break">${one.filename ?? String(one)}</span> <span class="field-error">${one.detail ?? ""}</span></li>`)}</ul>`}
  </section>`;
}

function comparison(metrics = {}) {
  const { base_loss: base, validation_loss: tuned } = metrics;
  if (typeof base !== "number" || typeof tuned !== "number") return "Nothing was held out, so there is no loss to compare.";
  const change = (tuned - base) / base;
  return `On what was held out, the loss went from ${figure(base)} (base model) to ${figure(tuned)}: ${change < 0 ? "−" : "+"}${percent(Math.abs(change))}.`;
}
