// What is learned from, on which base model and under which name: the same choice for a training, a search and advice.
import { get } from "../api.js";
import { Problem } from "./feedback.js";
import { Field } from "./field.js";
import { bytes, plural } from "./format.js";
import { html } from "./html.js";
import { all, useLoaded, usePages } from "./loading.js";
import { loadSchemas } from "./schema.js";
import { Pager, Table } from "./table.js";

export const DRAFT = "train-draft";
export const EMPTY = { isAll: true, documents: [], model: "", otherModel: "", adapter: "", method: "supervised", values: {} };
const OTHER = "other";

/** What can be chosen, and the API's schemas: `{schemas, models, adapters, hasDocuments}` as `useLoaded` gives it. */
export const useChoices = () =>
  useLoaded(async (signal) => {
    const [schemas, models, adapters, documents] = await Promise.all([
      loadSchemas(),
      get("/models", {}, signal),
      all("/fine-tuning/adapters", {}, { most: 200, signal }),
      get("/documents", { limit: 1 }, signal),
    ]);
    return { schemas, models: models.data, adapters, hasDocuments: documents.data.length > 0 };
  }, []);

/** The documents, the model and the adapter of a draft, as the API takes them: only what differs from its defaults. */
export function chosenOf(draft, models) {
  const body = {};
  if (!draft.isAll) body.document_ids = draft.documents;
  const model = draft.model === OTHER ? draft.otherModel.trim() : draft.model;
  if (model && model !== models.find((one) => one.default)?.id) body.model = model;
  if (draft.adapter.trim()) body.adapter = draft.adapter.trim();
  return body;
}

export function Model({ draft, models, onChange, error }) {
  const plain = models.filter((one) => !one.is_pattern);
  const patterns = models.filter((one) => one.is_pattern).map((one) => one.id);
  const options = plain.map((one) => [one.default ? "" : one.id, `${one.id}${one.default ? " (default)" : ""}${one.on_disk ? "" : ", to be downloaded"}`]);
  if (patterns.length) options.push([OTHER, "another …"]);
  return html`
    <${Field} label="Base model" type="select" options=${options} value=${draft.model} onChange=${(model) => onChange({ model })} error=${draft.model === OTHER ? null : error} />
    ${draft.model === OTHER && html`<${Field} label="Its name" value=${draft.otherModel} onChange=${(otherModel) => onChange({ otherModel })} error=${error} hint=${`Allowed: ${patterns.join(", ")}`} />`}
  `;
}

export function Adapter({ draft, adapters, onChange, error }) {
  const known = adapters.some((one) => one.name === draft.adapter.trim());
  const hint = known ? "It gets a new version, which is live once it is verified." : "The name that answers; a new one is made, or an old one gets a new version.";
  return html`<${Field} label="Adapter" list="adapter-names" placeholder="default" value=${draft.adapter} onChange=${(adapter) => onChange({ adapter })} hint=${hint} error=${error} autocomplete="off" />
    <datalist id="adapter-names">${adapters.map((one) => html`<option key=${one.name} value=${one.name} />`)}</datalist>`;
}

export function Documents({ draft, onChange, error }) {
  const { isAll, documents } = draft;
  const toggle = (id, isChosen) => onChange({ documents: isChosen ? [...documents, id] : documents.filter((one) => one !== id) });
  return html`
    <h2>What to learn from</h2>
    <div class="row">
      ${[[true, "All documents"], [false, "Some of them"]].map(
        ([value, words]) => html`<label key=${words} class="radio"><input type="radio" name="which" checked=${isAll === value} onChange=${() => onChange({ isAll: value })} /> ${words}</label>`,
      )}
      ${!isAll && html`<span class="muted" role="status">${documents.length ? `${plural(documents.length, "document")} chosen` : "Choose at least one."}</span>`}
    </div>
    ${error && html`<span class="field-error" aria-invalid="true" tabindex="-1">${error}</span>`}
    ${!isAll && html`<${Choice} chosen=${documents} onToggle=${toggle} />`}
  `;
}

function Choice({ chosen, onToggle }) {
  const list = usePages("/documents", {}, { limit: 10 });
  const columns = [
    {
      title: "Document",
      isHeading: true,
      cell: (one) => html`<label class="radio"><input type="checkbox" checked=${chosen.includes(one.id)} onChange=${(event) => onToggle(one.id, event.target.checked)} /> <span class="break">${one.filename}</span></label>`,
    },
    { title: "Kind", cell: (one) => one.kind },
    { title: "Size", className: "numeric", cell: (one) => bytes(one.size_bytes) },
    { title: "Problem", cell: (one) => (one.error ? html`<span class="field-error">${one.error.detail}</span>` : "") },
  ];
  return html`<${Problem} error=${list.error} />
    <${Table} caption="Documents to choose from" rows=${list.rows.filter((one) => one.purpose !== "questions")} rowKey=${(row) => row.id} columns=${columns} />
    <${Pager} pager=${list.pager} what="documents" />`;
}
