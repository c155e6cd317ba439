// A job and those that it waits for, each with how far it is: a setup, a training, and what comes of them.
import { get } from "../api.js";
import { ENDED } from "./following.js";
import { between, count, duration } from "./format.js";
import { html } from "./html.js";
import { Progress } from "./progress.js";
import { Status } from "./status.js";
import { href } from "../routes.js";

const KINDS = { setup: "Setup: documents become a dataset", training: "Training", evaluation: "Evaluation", sweep: "Search" };
const LONGEST = 5;

/** The job `id` and all that it waits for, the first to run first. */
export async function chainOf(id, signal) {
  const jobs = [];
  for (let next = id; next && jobs.length < LONGEST; ) {
    const job = await get(`/fine-tuning/jobs/${encodeURIComponent(next)}`, {}, signal);
    jobs.unshift(job);
    next = job.waits_for;
  }
  return jobs;
}

export function Chain({ jobs }) {
  return html`<section class="card" aria-label="Progress">
    <ol class="chain">
      ${jobs.map(
        (job) => html`<li key=${job.id}>
          <a href=${href("jobs", job.id)}>${KINDS[job.kind] ?? job.kind}</a>
          <${Status} of=${job.status} />
          <${Far} job=${job} />
        </li>`,
      )}
    </ol>
  </section>`;
}

function Far({ job }) {
  const { progress, status } = job;
  if (ENDED.includes(status)) return html`<span class="muted small">${job.error ? job.error.code : job.started_at ? between(job.started_at, job.finished_at) : ""}</span>`;
  if (status === "queued") return html`<span class="muted small">${job.waits_for ? "waits for what is above" : job.queue_position ? `${count(job.queue_position)} before it` : "next"}</span>`;
  const [done, all] = progress.total_steps ? [progress.step ?? 0, progress.total_steps] : [progress.documents_done ?? 0, progress.documents ?? 0];
  const left = typeof progress.seconds_left === "number" ? `, about ${duration(progress.seconds_left)} left` : "";
  const words = all ? `${progress.phase ? `${progress.phase}: ` : ""}${count(done)} of ${count(all)}${left}` : (progress.phase ?? "starting");
  return html`<${Progress} value=${all ? done / all : null} label=${`Progress of ${job.id}`}>${words}<//>`;
}
