// Keys: who may use this installation, and what each may do.
import { del, post, session, signIn } from "../api.js";
import { Confirm, Dialog } from "../parts/dialog.js";
import { Empty, Loading, Problem, say } from "../parts/feedback.js";
import { Field } from "../parts/field.js";
import { ago, count, DASH, time } from "../parts/format.js";
import { html, useEffect, useState } from "../parts/html.js";
import { usePages } from "../parts/loading.js";
import { Status } from "../parts/status.js";
import { Pager, Table } from "../parts/table.js";

const SCOPES = [
  ["read", "look at everything"],
  ["query", "ask questions"],
  ["train", "upload, train, promote and delete"],
  ["admin", "all of it, and keys"],
];
const LIMITS = [
  ["requests_per_minute", "Requests per minute"],
  ["upload_bytes_per_day", "Bytes of uploads per day"],
  ["max_queued_jobs", "Jobs that wait at a time"],
];

export default function Keys() {
  const list = usePages("/keys");
  const [who, setWho] = useState(null);
  const [isCreating, setCreating] = useState(false);
  const [made, setMade] = useState(null);
  const [revoking, setRevoking] = useState(null);
  useEffect(() => {
    session().then(setWho, () => {});
  }, []);
  const isFirst = list.isEmpty && who !== null && !who.key_id;
  const created = async (key) => {
    setCreating(false);
    setMade(key);
    if (isFirst) await signIn(key.secret).then(() => session().then(setWho), () => {}); // without it this page would be shut out
    list.reload();
  };
  const add = html`<button type="button" class="primary" onClick=${() => setCreating(true)}>Create a key</button>`;
  return html`
    <div class="page-head">
      <div>
        <h1 tabindex="-1">Keys</h1>
        <p>Programs and people show a key with each request. What each may do is its scopes.</p>
      </div>
      ${!list.isEmpty && add}
    </div>
    ${made && html`<${Secret} made=${made} onClose=${() => setMade(null)} />`}
    <${Problem} error=${list.error} />
    ${list.isLoading && html`<${Loading} what="keys" />`}
    ${list.isEmpty && html`<${Empty} title="No keys yet" action=${add}>
      Until there is one, only this machine itself is served. The first key has the scope admin; from then on every request needs a key, and this browser is signed in with the first.<//>`}
    ${list.rows.length > 0 && html`<${Table} caption="Keys, newest first" rows=${list.rows} rowKey=${(row) => row.id} columns=${columns(who, setRevoking)} />`}
    <${Pager} pager=${list.pager} what="keys" />
    ${isCreating && html`<${Create} isFirst=${isFirst} onCreated=${created} onClose=${() => setCreating(false)} />`}
    ${revoking && html`<${Revoke} key=${revoking.id} one=${revoking} isOwn=${revoking.id === who?.key_id} onClose=${() => setRevoking(null)} onDone=${list.reload} />`}
  `;
}

const columns = (who, onRevoke) => [
  { title: "Name", isHeading: true, cell: (one) => html`${one.name}${one.id === who?.key_id && html` <span class="muted small">this browser's</span>`}` },
  { title: "Begins with", cell: (one) => html`<code>${one.prefix}…</code>` },
  { title: "Scopes", cell: (one) => one.scopes.join(", ") },
  { title: "Limits", cell: limits },
  { title: "Created", className: "nowrap", cell: (one) => html`<time title=${time(one.created_at)}>${ago(one.created_at)}</time>` },
  { title: "Last used", className: "nowrap", cell: (one) => (one.last_used_at ? html`<time title=${time(one.last_used_at)}>${ago(one.last_used_at)}</time>` : "never") },
  {
    title: "",
    cell: (one) =>
      one.revoked_at
        ? html`<${Status} of="revoked" />`
        : html`<div class="actions"><button type="button" class="small plain" aria-label=${`Revoke ${one.name}`} onClick=${() => onRevoke(one)}>Revoke</button></div>`,
  },
];

function limits(key) {
  const set = LIMITS.filter(([name]) => key[name] !== null);
  if (!set.length) return html`<span class="muted">${DASH}</span>`;
  return set.map(([name, title]) => html`<div key=${name}>${title}: ${key[name] === 0 ? "none" : count(key[name])}</div>`);
}

function Create({ isFirst, onCreated, onClose }) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState(isFirst ? ["admin"] : ["read", "query"]);
  const [limit, setLimit] = useState({});
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const toggle = (scope, isOn) => setScopes(SCOPES.map(([one]) => one).filter((one) => (one === scope ? isOn : scopes.includes(one))));
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    const set = Object.entries(limit).filter(([, value]) => value !== "");
    try {
      await onCreated(await post("/keys", { name: name.trim(), scopes, ...Object.fromEntries(set.map(([key, value]) => [key, Number(value)])) }));
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`<${Dialog} title="Create a key" onClose=${onClose}>
    <form class="dialog-body" onSubmit=${submit}>
      <${Field} label="Name" value=${name} onChange=${setName} maxlength="128" required hint="Who or what uses it, such as “website” or “Kim's laptop”." />
      <fieldset>
        <legend>What it may do</legend>
        ${SCOPES.map(([scope, words]) => html`<${Field} key=${scope} type="checkbox" label=${`${scope}: ${words}`} value=${scopes.includes(scope)} onChange=${(isOn) => toggle(scope, isOn)} />`)}
      </fieldset>
      <details>
        <summary>Limits</summary>
        <div class="fields">
          ${LIMITS.map(
            ([key, title]) => html`<${Field} key=${key} label=${title} type="number" min="0" value=${limit[key] ?? ""} onChange=${(value) => setLimit({ ...limit, [key]: value })} hint="Empty: the installation's; 0: none." />`,
          )}
        </div>
      </details>
      <${Problem} error=${error} />
      <button class="primary" disabled=${isBusy || !name.trim() || !scopes.length}>Create</button>
    </form>
  <//>`;
}

function Secret({ made, onClose }) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(made.secret);
      say("The key is copied.");
    } catch {
      say("The browser does not let pages copy here; select the key and copy it yourself.", "problem");
    }
  };
  return html`<section class="card made" aria-labelledby="made-title">
    <h2 id="made-title">The key “${made.name}” is made: copy it now</h2>
    <p>It is shown this once. Nobody, this service included, can show it again.</p>
    <div class="secret">
      <input readonly value=${made.secret} aria-label="The new key" onFocus=${(event) => event.target.select()} />
      <button type="button" class="primary" onClick=${copy}>Copy</button>
      <button type="button" onClick=${onClose}>I have it</button>
    </div>
  </section>`;
}

function Revoke({ one, isOwn, onClose, onDone }) {
  const revoke = async () => {
    await del(`/keys/${one.id}`);
    say(`“${one.name}” is revoked.`);
    onDone();
  };
  return html`<${Confirm} title="Revoke this key?" action="Revoke" danger onConfirm=${revoke} onClose=${onClose}>
    <p class="break"><strong>${one.name}</strong> <code>${one.prefix}…</code></p>
    <p>It ends for good, everywhere within two seconds. What it made stays.</p>
    ${isOwn && html`<p class="warn-box">This browser is signed in with it: you will be asked for another key.</p>`}
  <//>`;
}
