// Adapters: the list of names, and one name by its link `#/adapters/<name>`.
import { upload } from "../api.js";
import { Dialog } from "../parts/dialog.js";
import { Empty, Loading, Problem, say } from "../parts/feedback.js";
import { Field } from "../parts/field.js";
import { ago, count, DASH, percent, time } from "../parts/format.js";
import { html, useRef, useState } from "../parts/html.js";
import { usePages } from "../parts/loading.js";
import { Progress } from "../parts/progress.js";
import { Pager, Table } from "../parts/table.js";
import { go, href, useQuery } from "../routes.js";
import { Adapter } from "./adapter.js";

export default function Adapters({ parts }) {
  return parts.length ? html`<${Adapter} key=${parts[0]} name=${parts[0]} />` : html`<${List} />`;
}

function List() {
  const [prefix, setPrefix] = useQuery("prefix");
  const list = usePages("/fine-tuning/adapters", { prefix }, { everySeconds: 10 });
  const [isImporting, setImporting] = useState(false);
  return html`
    <div class="page-head">
      <div>
        <h1 tabindex="-1">Adapters</h1>
        <p>What was learned. An adapter is a name; its live version is the one that answers under it.</p>
      </div>
      <div class="actions">
        <button type="button" onClick=${() => setImporting(true)}>Import</button>
        <a class="button primary" href=${href("train")}>New training</a>
      </div>
    </div>
    ${!(list.isEmpty && !prefix) && html`<div class="filters"><${Field} label="Name begins with" type="search" value=${prefix} onChange=${setPrefix} /></div>`}
    <${Problem} error=${list.error} />
    ${list.isLoading && html`<${Loading} what="adapters" />`}
    ${list.isEmpty && prefix && html`<${Empty} title="No such adapter">No name begins with “${prefix}”.<//>`}
    ${list.isEmpty && !prefix && html`<${Empty} title="No adapters yet" action=${html`<a class="button primary" href=${href("train")}>Train the first</a>`}>
      Train one on your documents, or import a LoRA adapter that was made elsewhere.<//>`}
    ${list.rows.length > 0 && html`<${Table} caption="Adapters by name" rows=${list.rows} rowKey=${(row) => row.name} columns=${COLUMNS} />`}
    <${Pager} pager=${list.pager} what="adapters" />
    ${isImporting && html`<${Import} onClose=${() => setImporting(false)} />`}
  `;
}

const COLUMNS = [
  { title: "Name", isHeading: true, cell: (one) => html`<a href=${href("adapters", one.name)}>${one.name}</a>` },
  { title: "Live version", className: "numeric", cell: (one) => one.live_version ?? DASH },
  { title: "Versions", className: "numeric", cell: (one) => count(one.num_versions) },
  { title: "Base model", className: "break", cell: (one) => one.model ?? DASH },
  { title: "Created", className: "nowrap", cell: (one) => html`<time title=${time(one.created_at)}>${ago(one.created_at)}</time>` },
  {
    title: "",
    cell: (one) => html`<div class="actions">${one.live_version !== null && html`<a class="button small plain" aria-label=${`Ask ${one.name}`} href=${href("playground", { model: one.name })}>Ask</a>`}</div>`,
  },
];

function Import({ onClose }) {
  const input = useRef(null);
  const [name, setName] = useState("");
  const [model, setModel] = useState("");
  const [isPromoted, setPromoted] = useState(false);
  const [hasFiles, setHasFiles] = useState(false);
  const [share, setShare] = useState(null);
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const texts = { model: model.trim(), promote: isPromoted ? "true" : "" };
      const { job_id: job } = await upload(`/fine-tuning/adapters/${encodeURIComponent(name.trim())}/import`, [...input.current.files], { texts, onProgress: setShare });
      say("The files have come; the job verifies them.");
      go(href("jobs", job));
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`<${Dialog} title="Import an adapter" onClose=${onClose}>
    <form class="dialog-body" onSubmit=${submit}>
      <p>A LoRA adapter in PEFT's format: one .zip, .tar.gz or .tgz of its folder, or its files. It is verified before it is published.</p>
      <${Field} label="Name here" value=${name} onChange=${setName} required hint="It becomes the next version of this name." />
      <div class="field">
        <label for="import-files">Files</label>
        <input ref=${input} id="import-files" type="file" multiple required onChange=${(event) => setHasFiles(event.target.files.length > 0)} />
      </div>
      <${Field} label="Base model" value=${model} onChange=${setModel} hint="Only where it has another name here than in the adapter." />
      <${Field} type="checkbox" label="Make it live even if another version is" value=${isPromoted} onChange=${setPromoted} />
      ${isBusy && html`<${Progress} value=${share} label="Upload of the adapter">${percent(share)}<//>`}
      <${Problem} error=${error} />
      <button class="primary" disabled=${isBusy || !name.trim() || !hasFiles}>Import</button>
    </form>
  <//>`;
}
