// Documents: drop files, see how they come, look into them, delete them.
import { address, beginning, del, get } from "../api.js";
import { Confirm, Dialog } from "../parts/dialog.js";
import { droppedFiles } from "../parts/dropped.js";
import { Empty, Loading, Problem, say } from "../parts/feedback.js";
import { Field } from "../parts/field.js";
import { ago, bytes, percent, plural, time } from "../parts/format.js";
import { html, useEffect, useRef, useState } from "../parts/html.js";
import { useLoaded, usePages } from "../parts/loading.js";
import { Progress } from "../parts/progress.js";
import { Status } from "../parts/status.js";
import { useStored } from "../parts/stored.js";
import { Pager, Table } from "../parts/table.js";
import { href } from "../routes.js";
import * as uploads from "../parts/uploads.js";

const AS_TEXT = ["txt", "md", "csv", "jsonl", "html"]; // what can be shown as it is
const KINDS = ".pdf,.docx,.html,.htm,.md,.txt,.csv,.jsonl";

export default function Documents() {
  const list = usePages("/documents", {}, { everySeconds: 5 });
  const [deleting, setDeleting] = useState(null);
  const [shown, setShown] = useState(null);
  const sent = uploads.useUploads(list.reload);
  return html`
    <div class="page-head">
      <div>
        <h1 tabindex="-1">Documents</h1>
        <p>What your models learn from, and what answers are found in. Nothing of it leaves this installation.</p>
      </div>
      ${list.rows.length > 0 && html`<div class="actions"><a class="button" href=${href("advice")}>Tune, RAG, both or neither?</a><a class="button primary" href=${href("train")}>Train on documents</a></div>`}
      </div>
    <${Drop} />
    <${Uploads} entries=${sent} />
    <${Problem} error=${list.error} />
    ${list.isLoading && html`<${Loading} what="documents" />`}
    ${list.isEmpty && html`<${Empty} title="No documents yet">Drop a handbook, guidelines, or a table of questions and answers above. Then go on to training.<//>`}
    ${list.rows.length > 0 && html`<${Table} caption="Documents, newest first" rows=${list.rows} rowKey=${(row) => row.id} columns=${columns(setDeleting, setShown)} />`}
    <${Pager} pager=${list.pager} what="documents" />
    ${shown && html`<${Preview} document=${shown} onClose=${() => setShown(null)} />`}
    ${deleting && html`<${Delete} document=${deleting} onClose=${() => setDeleting(null)} onDone=${list.reload} />`}
  `;
}

const columns = (onDelete, onShow) => [
  {
    title: "Name",
    isHeading: true,
    cell: (one) => html`${one.filename}${one.error && html`<div class="field-error">${one.error.detail} <code>${one.error.code}</code></div>`}`,
  },
  { title: "Kind", cell: (one) => (one.purpose === "questions" ? `${one.kind}, questions` : one.kind) },
  { title: "Size", className: "numeric", cell: (one) => bytes(one.size_bytes) },
  { title: "Status", cell: (one) => html`<${Status} of=${one.status} />` },
  { title: "Uploaded", className: "nowrap", cell: (one) => html`<time title=${time(one.created_at)}>${ago(one.created_at)}</time>` },
  {
    title: "",
    cell: (one) => html`<div class="actions">
      <button type="button" class="small plain" aria-label=${`Look into ${one.filename}`} onClick=${() => onShow(one)}>Look</button>
      <a class="button small plain" href=${address(`/documents/${one.id}/content`)} download=${one.filename} aria-label=${`Download ${one.filename}`}>Download</a>
      <button type="button" class="small plain" aria-label=${`Delete ${one.filename}`} onClick=${() => onDelete(one)}>Delete</button>
    </div>`,
  },
];

function Drop() {
  const input = useRef(null);
  const [isOver, setOver] = useState(false);
  const [hasQuestions, setHasQuestions] = useStored("upload-questions", false);
  const add = (files) => uploads.add(files, hasQuestions ? "questions" : null);
  const drop = async (event) => {
    event.preventDefault();
    setOver(false);
    add(await droppedFiles(event.dataTransfer));
  };
  const chosen = (event) => {
    add([...event.target.files]);
    event.target.value = "";
  };
  const over = (event) => {
    event.preventDefault();
    setOver(true);
  };
  return html`<section class=${`drop ${isOver ? "over" : ""}`} aria-label="Upload" onDragOver=${over} onDragEnter=${over} onDragLeave=${() => setOver(false)} onDrop=${drop}>
    <div>
      <strong>Drop files or folders here</strong>
      <p class="hint">${hasQuestions ? "jsonl or csv with question and answer" : "pdf, docx, html, md, txt, csv, jsonl; many at once"}</p>
      <${Field} type="checkbox" label="These are questions to test with: never learned from" value=${hasQuestions} onChange=${setHasQuestions} />
    </div>
    <input ref=${input} id="files" class="unseen" type="file" multiple accept=${KINDS} onChange=${chosen} tabindex="-1" aria-hidden="true" />
    <button type="button" onClick=${() => input.current.click()}>Choose files</button>
  </section>`;
}

const WORDS = { waiting: "waits for its turn", done: "uploaded", known: "the same bytes were here already" };

function Uploads({ entries }) {
  if (!entries.length) return null;
  const left = entries.filter((one) => one.state === "waiting" || one.state === "sending").length;
  const failed = entries.filter((one) => one.state === "failed").length;
  const summary = left ? `${plural(left, "file")} to go` : failed ? `${plural(failed, "file")} of ${entries.length} could not be taken` : `${plural(entries.length, "file")} uploaded`;
  return html`<section class="card" aria-label="Uploads">
    <header>
      <h2><span role="status">${summary}</span></h2>
      <button type="button" class="plain small" disabled=${left === entries.length} onClick=${uploads.clear}>Clear</button>
    </header>
    <ul class="uploads">
      ${entries.map((one) => html`<li key=${one.id} class=${one.state}><${Upload} entry=${one} /></li>`)}
    </ul>
  </section>`;
}

function Upload({ entry }) {
  const { name, size, state, share, error } = entry;
  return html`
    <span class="break">${name} <span class="muted small">${bytes(size)}</span></span>
    ${state === "sending" && html`<${Progress} value=${share} label=${`Upload of ${name}`}>${percent(share)}<//>`}
    ${WORDS[state] && html`<span class="small muted">${WORDS[state]}</span>`}
    ${error && html`<span class="field-error">${error.detail} <code>${error.code}</code></span>`}
    ${error && entry.file && html`<button type="button" class="small" onClick=${() => uploads.retry(entry.id)}>Try again</button>`}
  `;
}

/** A document's text: in the chunks that answers find it by, and, where it is text, as it was uploaded. */
function Preview({ document, onClose }) {
  const [view, setView] = useStored("document-view", "chunks");
  const isText = AS_TEXT.includes(document.kind);
  const shown = isText ? view : "chunks";
  return html`<${Dialog} title=${document.filename} wide onClose=${onClose}>
    <div class="dialog-body">
      ${isText && html`<div class="tabs" role="group" aria-label="What of it">
        ${[["chunks", "Chunks"], ["file", "File"]].map(([name, words]) => html`<button key=${name} type="button" aria-pressed=${String(shown === name)} onClick=${() => setView(name)}>${words}</button>`)}
      </div>`}
      ${shown === "chunks" ? html`<${Chunks} document=${document} />` : html`<${AsText} document=${document} />`}
    </div>
  <//>`;
}

function AsText({ document }) {
  const { data, error } = useLoaded((signal) => beginning(`/documents/${document.id}/content`, { signal }), [document.id]);
  return html`<${Problem} error=${error} />
    ${!data && !error && html`<${Loading} what="its text" />`}
    ${data && html`<pre tabindex="0" role="region" aria-label=${`Text of ${document.filename}`}>${data.text}</pre>`}
    ${data && !data.isWhole && html`<p class="hint">This is the beginning of ${bytes(document.size_bytes)}; download it for the rest.</p>`}`;
}

function Chunks({ document }) {
  const [chunks, setChunks] = useState([]);
  const [after, setAfter] = useState(-1);
  const { data, error } = useLoaded((signal) => get(`/documents/${document.id}/chunks`, { after }, signal), [document.id, after]);
  useEffect(() => data && setChunks((before) => [...before.filter((one) => one.chunk <= after), ...data.data]), [data]);
  return html`<${Problem} error=${error} />
    ${!data && !error && chunks.length === 0 && html`<${Loading} what="its chunks" />`}
    ${data && data.data.length === 0 && chunks.length === 0 && html`<p class="muted">There are no chunks: it was not indexed yet, which takes some seconds after its upload, or there is no text in it.</p>`}
    <ol class="chunks" tabindex="0" aria-label=${`Chunks of ${document.filename}`}>
      ${chunks.map(
        (one) => html`<li key=${one.chunk}>
          <p class="hint">${[`Chunk ${one.chunk + 1}`, one.heading, one.page && `page ${one.page}`].filter(Boolean).join(" · ")}</p>
          <p class="text">${one.text}</p>
        </li>`,
      )}
    </ol>
    ${data?.has_more && html`<button type="button" onClick=${() => setAfter(Number(data.last_id))}>More</button>`}`;
}

function Delete({ document, onClose, onDone }) {
  const remove = async () => {
    const { learned_by: learned } = await del(`/documents/${document.id}`);
    const names = learned.map((one) => `${one.adapter}@${one.version}`).join(", ");
    say(names ? `${document.filename} is deleted. These versions learned from it and keep what they learned: ${names}.` : `${document.filename} is deleted. No version learned from it.`);
    onDone();
  };
  return html`<${Confirm} title="Delete this document?" action="Delete" danger onConfirm=${remove} onClose=${onClose}>
    <p class="break"><strong>${document.filename}</strong></p>
    <p>Its bytes and its text go, and no answer cites it any more. Versions that learned from it keep what they learned.</p>
  <//>`;
}
