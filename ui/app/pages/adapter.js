// One adapter: its versions side by side, what they learned from, which one is live and how that came about.
import { address, del, get, post } from "../api.js";
import { Confirm } from "../parts/dialog.js";
import { Evaluate, Found, useVerdicts } from "../parts/evaluate.js";
import { Export, Exports } from "../parts/exporting.js";
import { Loading, Problem, say } from "../parts/feedback.js";
import { Field } from "../parts/field.js";
import { ago, bytes, count, DASH, duration, figure, percent, plural, short, time } from "../parts/format.js";
import { GateMark, Rivals } from "../parts/gate.js";
import { html, useState } from "../parts/html.js";
import { useLoaded } from "../parts/loading.js";
import { Policy } from "../parts/policy.js";
import { Status } from "../parts/status.js";
import { useStored } from "../parts/stored.js";
import { Table } from "../parts/table.js";
import { go, href, useQuery } from "../routes.js";

export function Adapter({ name }) {
  const path = `/fine-tuning/adapters/${encodeURIComponent(name)}`;
  const found = useLoaded((signal) => get(path, {}, signal), [path], { everySeconds: 5 });
  const [chosen, setChosen] = useQuery("version");
  const [doing, setDoing] = useState(null); // {what, version}
  const [exports, setExports] = useStored(`exports:${name}`, []);
  const adapter = found.data;
  const verdicts = useVerdicts(name);
  const held = heldOf(adapter);
  const close = () => setDoing(null);
  const done = (words) => {
    say(words);
    found.reload();
  };
  const shown = adapter?.versions.find((one) => String(one.version) === chosen) ?? adapter?.versions[0];
  return html`
    <div class="page-head">
      <div>
        <p class="small"><a href=${href("adapters")}>Adapters</a></p>
        <h1 tabindex="-1" class="break">${name}</h1>
        ${adapter && html`<p>${adapter.live_version === null ? "No version is live: promote one." : `Version ${adapter.live_version} answers, on ${adapter.model}.`}</p>`}
      </div>
      ${adapter && html`<div class="actions">
        ${adapter.live_version !== null && html`<a class="button primary" href=${href("playground", { model: name })}>Ask it</a>`}
        <button type="button" onClick=${() => setDoing({ what: "evaluate" })}>Evaluate</button>
        <button type="button" onClick=${() => setDoing({ what: "rollback" })}>Roll back</button>
        <button type="button" class="danger" onClick=${() => setDoing({ what: "delete-all" })}>Delete</button>
      </div>`}
    </div>
    <${Problem} error=${found.error} />
    ${adapter === null && !found.error && html`<${Loading} what=${name} />`}
    ${adapter && html`
      <section class="stack" aria-labelledby="versions-title">
        <h2 id="versions-title">${plural(adapter.num_versions, "version")} side by side</h2>
        <${Table} caption="Versions, newest first" rows=${adapter.versions} rowKey=${(row) => row.version} columns=${columns(name, shown, setChosen, setDoing, held, verdicts)} />
      </section>
      ${exports.length > 0 && html`<${Exports} ids=${exports} onForget=${(id) => setExports(exports.filter((one) => one !== id))} />`}
      ${adapter.policy && html`<${Policy} path=${path} policy=${adapter.policy} onChanged=${found.reload} />`}
      ${shown && html`<${Lineage} version=${shown} />`}
      <section class="stack" aria-labelledby="history-title">
        <h2 id="history-title">Promotions</h2>
        ${adapter.history.length
          ? html`<${Table} caption="Moves of the live version, newest first" rows=${adapter.history.map((row, id) => ({ ...row, id }))} rowKey=${(row) => row.id} columns=${HISTORY} />`
          : html`<p class="muted">None yet.</p>`}
      </section>
    `}
    ${doing && html`<${Doing} doing=${doing} name=${name} path=${path} adapter=${adapter} onClose=${close} onDone=${done} onExported=${(id) => setExports([id, ...exports])} />`}
  `;
}

const lossOf = (metrics) => metrics.best_validation_loss ?? metrics.validation_loss;

/** Versions that the gate held, and that nobody has made live since: a row of the history that holds one begins with its number. */
const heldOf = (adapter) =>
  (adapter?.versions ?? []).map((one) => one.version).filter((number) => {
    const isItsHold = (row) => row.action === "hold" && row.reason.startsWith(`version ${number}:`);
    const last = adapter.history.find((row) => isItsHold(row) || (row.action !== "hold" && row.to_version === number));
    return last?.action === "hold";
  });

const promoteWords = (held, { version }) => (held.includes(version) ? "Promote all the same" : "Promote");

const columns = (name, shown, onChoose, onDo, held, verdicts) => [
  {
    title: "Version",
    isHeading: true,
    cell: (one) => html`<button type="button" class="small choice" aria-pressed=${String(one === shown)} aria-label=${`What version ${one.version} learned from`} onClick=${() => onChoose(String(one.version))}>${one.version}</button>
      ${one.live && html` <${Status} of="live" />`} ${held.includes(one.version) && html` <${Status} of="held" kind="warn" />`} ${one.broken_reason && html` <${Status} of="broken" kind="bad" /><div class="field-error">${one.broken_reason}</div>`}`,
  },
  { title: "Held-out loss", className: "numeric", cell: ({ metrics }) => html`<div>${figure(lossOf(metrics))}<${Change} metrics=${metrics} /></div>` },
  { title: "Evaluation", cell: (one) => html`<${Found} found=${verdicts[`${name}@${one.version}`]} />` },
  { title: "Accuracy", className: "numeric", cell: ({ metrics }) => percent(metrics.validation_accuracy, 1) },
  { title: "Training loss", className: "numeric", cell: ({ metrics }) => figure(metrics.train_loss) },
  { title: "Steps", className: "numeric", cell: ({ metrics }) => count(metrics.steps) },
  { title: "Took", className: "numeric", cell: ({ metrics }) => duration(metrics.seconds) },
  { title: "Size", className: "numeric", cell: (one) => bytes(one.size_bytes) },
  { title: "Created", className: "nowrap", cell: (one) => html`<time title=${time(one.created_at)}>${ago(one.created_at)}</time>` },
  {
    title: "",
    cell: (one) => html`<div class="actions wrap">
      ${!one.live && html`<button type="button" class="small" aria-label=${`${promoteWords(held, one)} version ${one.version}`} onClick=${() => onDo({ what: "promote", version: one.version })}>${promoteWords(held, one)}</button>`}
      <a class="button small plain" aria-label=${`Ask version ${one.version}`} href=${href("playground", { model: `${name}@${one.version}`, against: one.model })}>Ask</a>
      <button type="button" class="small plain" aria-label=${`Export version ${one.version}`} onClick=${() => onDo({ what: "export", version: one.version })}>Export</button>
      ${!one.live && html`<button type="button" class="small plain" aria-label=${`Delete version ${one.version}`} onClick=${() => onDo({ what: "delete", version: one.version })}>Delete</button>`}
    </div>`,
  },
];

/** By how much the held-out loss changed from the base model's. */
function Change({ metrics }) {
  const [base, tuned] = [metrics.base_loss, lossOf(metrics)];
  if (typeof base !== "number" || typeof tuned !== "number" || base === 0) return null;
  const change = tuned / base - 1;
  return html`<div class="small muted">base ${figure(base)}, ${change > 0 ? "+" : "−"}${percent(Math.abs(change))}</div>`;
}

const HISTORY = [
  { title: "When", isHeading: true, className: "nowrap", cell: (one) => html`<time title=${time(one.created_at)}>${ago(one.created_at)}</time>` },
  { title: "What", className: "nowrap", cell: (one) => html`${one.action} <${GateMark} decision=${one.decision} />` },
  { title: "From", className: "numeric", cell: (one) => one.from_version ?? DASH },
  { title: "To", className: "numeric", cell: (one) => one.to_version ?? DASH },
  { title: "Why", className: "break", cell: (one) => html`${one.reason}<${Rivals} decision=${one.decision} />` },
  { title: "Who", className: "break", cell: (one) => one.actor ?? DASH },
];

function Lineage({ version }) {
  const { lineage, config } = version;
  const settings = Object.entries(config).filter(([, value]) => ["string", "number", "boolean"].includes(typeof value) && value !== "");
  return html`<section class="card" aria-labelledby="lineage-title">
    <h2 id="lineage-title">What version ${version.version} learned from</h2>
    ${lineage.imported && html`<p>It was made elsewhere, and came as ${lineage.imported.files.map((one) => one.filename).join(", ")} (${bytes(lineage.imported.files.reduce((sum, one) => sum + one.size_bytes, 0))}).</p>`}
    ${lineage.documents.length > 0 && html`<ul class="plain-list">
      ${lineage.documents.slice(0, 50).map((one) => html`<li key=${one.id} class="break">${one.filename} ${one.deleted ? html`<span class="muted small">deleted since</span>` : html`<a class="small" href=${address(`/documents/${one.id}/content`)} download=${one.filename} aria-label=${`Download ${one.filename}`}>Download</a>`}</li>`)}
      ${lineage.documents.length > 50 && html`<li class="muted">and ${count(lineage.documents.length - 50)} more</li>`}
    </ul>`}
    <p class="row">
      ${lineage.job_id && html`<a href=${href("jobs", lineage.job_id)}>Its training</a>`}
      ${lineage.setup_job_id && html`<a href=${href("jobs", lineage.setup_job_id)}>Its setup</a>`}
      ${lineage.imported && html`<a href=${href("jobs", lineage.imported.job_id)}>Its import</a>`}
    </p>
    ${settings.length > 0 && html`<details><summary>How it was trained</summary>
      <dl class="pairs">${settings.map(([key, value]) => html`<dt key=${`${key}-t`}>${key}</dt><dd key=${key}>${typeof value === "number" ? short(value) : String(value)}</dd>`)}</dl>
    </details>`}
  </section>`;
}

function Doing({ doing, name, path, adapter, onClose, onDone, onExported }) {
  const { what, version } = doing;
  const [reason, setReason] = useState("");
  const why = html`<${Field} label="Why" value=${reason} onChange=${setReason} maxlength="255" hint="It stands in the history of promotions." />`;
  const body = reason.trim() ? { reason: reason.trim(), actor: "pages" } : { actor: "pages" };
  if (what === "evaluate") return html`<${Evaluate} adapter=${adapter} onClose=${onClose} />`;
  if (what === "export") return html`<${Export} name=${name} version=${version} onClose=${onClose} onExported=${onExported} />`;
  if (what === "promote") {
    const run = async () => {
      await post(`${path}/promote`, { version, ...body });
      onDone(`Version ${version} is live.`);
    };
    return html`<${Confirm} title=${`Promote version ${version}?`} action="Promote" onConfirm=${run} onClose=${onClose}>
      <p>The next answer comes from it${adapter.live_version === null ? "" : ` instead of version ${adapter.live_version}`}. Answers that have begun end as they are.</p>
      ${why}
    <//>`;
  }
  if (what === "rollback") {
    const run = async () => {
      const now = await post(`${path}/rollback`, body);
      onDone(`Version ${now.live_version} is live again.`);
    };
    return html`<${Confirm} title="Roll back?" action="Roll back" onConfirm=${run} onClose=${onClose}>
      <p>The version that was live before ${adapter.live_version === null ? "" : `version ${adapter.live_version} `}answers again.</p>
      ${why}
    <//>`;
  }
  if (what === "delete") {
    const run = async () => {
      await del(`${path}/versions/${version}`);
      onDone(`Version ${version} is deleted.`);
    };
    return html`<${Confirm} title=${`Delete version ${version}?`} action="Delete" danger onConfirm=${run} onClose=${onClose}>
      <p>Its weights go for good. Its number is not given out again.</p>
    <//>`;
  }
  const run = async () => {
    await del(path, { force: true });
    say(`${name} is deleted.`);
    go(href("adapters"));
  };
  return html`<${Confirm} title=${`Delete ${name}?`} action=${`Delete ${plural(adapter.num_versions, "version")}`} danger onConfirm=${run} onClose=${onClose}>
    <p>All its weights go for good${adapter.live_version === null ? "" : "; the live version too, and nothing answers under this name any more"}.</p>
  <//>`;
}
