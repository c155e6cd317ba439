// One search: how far it is, its trials in a table and in plots, the best one and what the gate said of it.
import { get, post } from "../api.js";
import { Chain, chainOf } from "../parts/chain.js";
import { Confirm } from "../parts/dialog.js";
import { Loading, Problem } from "../parts/feedback.js";
import { ENDED, Events, Lost, useLog } from "../parts/following.js";
import { count, duration, figure, time } from "../parts/format.js";
import { Decision } from "../parts/gate.js";
import { html, useCallback, useEffect, useState } from "../parts/html.js";
import { useLoaded } from "../parts/loading.js";
import { labelOf } from "../parts/schema.js";
import { Status } from "../parts/status.js";
import { Curves, Importances, Parallel, valueWords } from "../parts/trialplots.js";
import { Trials } from "../parts/trials.js";
import { href } from "../routes.js";

const READ_EVERY_SECONDS = 2;

export function Sweep({ id }) {
  const path = `/fine-tuning/sweeps/${encodeURIComponent(id)}`;
  const [hasEnded, setEnded] = useState(false);
  const every = { everySeconds: hasEnded ? null : READ_EVERY_SECONDS };
  const loaded = useLoaded((signal) => get(path, {}, signal), [id], every);
  const chain = useLoaded((signal) => chainOf(id, signal), [id], every);
  const { log, connection } = useLog(`/fine-tuning/jobs/${encodeURIComponent(id)}`, () => (loaded.reload(), chain.reload()));
  const sweep = loaded.data;
  useEffect(() => setEnded(Boolean(sweep && ENDED.includes(sweep.status))), [sweep?.status]);
  return html`
    <${Head} id=${id} sweep=${sweep} onDone=${loaded.reload} />
    <${Problem} error=${loaded.error} />
    ${!sweep && !loaded.error && html`<${Loading} what="the sweep" />`}
    ${sweep && html`
      <${Problem} error=${sweep.error} title="This sweep failed" />
      <${Lost} connection=${connection} />
      ${!hasEnded && chain.data && html`<${Chain} jobs=${chain.data} />`}
      <${Counts} sweep=${sweep} />
      ${sweep.best && html`<${Best} sweep=${sweep} />`}
      <${Plots} sweep=${sweep} />
      <${Events} log=${log} />
    `}
  `;
}

function Head({ id, sweep, onDone }) {
  const [isAsking, setAsking] = useState(false);
  const cancel = () => post(`/fine-tuning/jobs/${encodeURIComponent(id)}/cancel`).then(onDone);
  return html`<div class="page-head">
    <div>
      <p class="small"><a href=${href("sweeps")}>Sweeps</a></p>
      <h1 tabindex="-1" class="break">Sweep${sweep ? html` for <em>${sweep.adapter}</em>` : null}</h1>
      <p class="row">${sweep && html`<${Status} of=${sweep.status} />${sweep.created_at && html`<span>${time(sweep.created_at)}</span>`}`}<code class="break">${id}</code></p>
    </div>
    ${sweep && !ENDED.includes(sweep.status) && html`<button type="button" class="danger" onClick=${() => setAsking(true)}>Cancel</button>`}
    ${isAsking && html`<${Confirm} title="Cancel this sweep?" action="Cancel the sweep" danger onClose=${() => setAsking(false)} onConfirm=${cancel}>
      <p>No trial begins any more and those that run are ended. What has finished stays.</p>
    <//>`}
  </div>`;
}

const STATES = ["complete", "pruned", "failed", "cancelled", "running"];

function Counts({ sweep }) {
  const of = (state) => sweep.trials.filter((one) => one.state === state).length;
  const shown = STATES.filter((state) => of(state) || state === "complete");
  return html`<dl class="figures" aria-label="Trials">
    <div><dt>Trials</dt><dd>${count(sweep.trials.length)} <small>of ${count(sweep.num_trials)}</small></dd></div>
    ${shown.map((state) => html`<div key=${state}><dt>${labelOf(state)}</dt><dd>${count(of(state))}</dd></div>`)}
    <div><dt>Time of all trials</dt><dd>${duration(sweep.trials.reduce((sum, one) => sum + (one.seconds ?? 0), 0))}</dd></div>
  </dl>`;
}

function Best({ sweep }) {
  const { number, value, params, version, decision, model } = sweep.best;
  return html`<section class="card recommended" aria-labelledby="best-title">
    <h2 id="best-title">Best: trial ${number}, held-out loss ${figure(value)}</h2>
    <dl class="pairs">${Object.entries(params).map(([name, one]) => html`<dt key=${`${name}-t`}>${labelOf(name)}</dt><dd key=${name}>${valueWords(one)}</dd>`)}</dl>
    ${!version && model && html`<p>Its weights are kept: <a href=${href("playground", { model })}>ask them</a>.</p>`}
    ${version && html`<p>Published as <a href=${href("adapters", sweep.adapter, { version })}>${sweep.adapter}@${version}</a>.</p>`}
    <${Decision} decision=${decision} />
  </section>`;
}

/** What one plot is asked to look at, the others and the table show too. */
function Plots({ sweep }) {
  const [at, setAt] = useState(null);
  const look = useCallback(setAt, []);
  const { trials, best, importances } = sweep;
  const shared = { trials, best, at, onLook: look };
  if (!trials.length) return html`<p class="muted">No trial has begun yet.</p>`;
  return html`
    <section class="card" aria-label="Settings and loss"><${Parallel} ...${shared} /></section>
    <div class="columns">
      <section class="card" aria-label="Losses"><${Curves} ...${shared} /></section>
      <section class="card" aria-label="What matters"><${Importances} importances=${importances ?? {}} /></section>
    </div>
    <section class="stack" aria-labelledby="trials-title"><h2 id="trials-title">Trials</h2><${Trials} ...${shared} /></section>
  `;
}
