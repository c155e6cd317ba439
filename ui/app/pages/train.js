// Train: which documents, on which base model, under which name, and the few options that matter; the rest is folded away.
import { create } from "../api.js";
import { Adapter, chosenOf, Documents, DRAFT, EMPTY, Model, useChoices } from "../parts/choosing.js";
import { Estimate } from "../parts/estimate.js";
import { Empty, Loading, Problem } from "../parts/feedback.js";
import { Field } from "../parts/field.js";
import { html, useEffect, useRef, useState } from "../parts/html.js";
import { fieldsOf, valueOf } from "../parts/schema.js";
import { SchemaField } from "../parts/schemafield.js";
import { store, useStored } from "../parts/stored.js";
import { go, href } from "../routes.js";

const MAIN = ["num_epochs", "learning_rate", "lora_rank", "validation_split"];
const DRAWN_APART = ["document_ids", "validation_document_ids", "model", "model_name", "adapter", "method", "train", "modules_to_save"];
const LABELS = { num_epochs: "Epochs", validation_split: "Held-out share" };
const HINTS = {
  num_epochs: "How often all of it is gone through.",
  learning_rate: "The peak; it warms up, then falls.",
  lora_rank: "How much can be learned; more takes more memory.",
  validation_split: "The share that is held out to measure the loss on.",
  max_length: "Tokens of one example.",
  batch_size: "Examples that go through the model at once.",
  gradient_accumulation_steps: "Batches that make up one step.",
  lora_alpha: "How strongly what is learned counts.",
  target_modules: "auto, all-linear, names between commas, or one regular expression.",
  early_stopping_patience: "Evaluations without a lower held-out loss after which it ends.",
  quantization: "Of the base model, to save memory.",
  allow_4bit: "As the last resort when memory is short.",
  trackers: "Each must be installed where the training runs.",
};

export default function Train() {
  const loaded = useChoices();
  return html`
    <div class="page-head"><div>
      <h1 tabindex="-1">Train</h1>
      <p>Documents become a dataset, and the dataset a new version of an adapter. Whatever you leave as it is has a good default.</p>
    </div>
    ${loaded.data?.hasDocuments && html`<div class="actions"><a class="button" href=${href("sweeps", "new")}>Search for the best settings</a><a class="button" href=${href("advice")}>Tune, RAG, both or neither?</a></div>`}
    </div>
    <${Problem} error=${loaded.error} />
    ${!loaded.data && !loaded.error && html`<${Loading} what="what can be chosen" />`}
    ${loaded.data && !loaded.data.hasDocuments && html`<${Empty} title="Nothing to learn from yet" action=${html`<a class="button primary" href=${href("documents")}>Add documents</a>`}>
      Upload some documents first: text to imitate, or questions and answers to learn.<//>`}
    ${loaded.data?.hasDocuments && html`<${Form} ...${loaded.data} schema=${loaded.data.schemas.SetupRequest} />`}
  `;
}

function Form({ schema, models, adapters }) {
  const [draft, setDraft] = useStored(DRAFT, EMPTY);
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const form = useRef(null);
  const request = useRef({ text: "", key: "" }); // the same request again, after a lost answer, makes no second job
  const fields = fieldsOf(schema, DRAWN_APART);
  const change = (values) => setDraft((before) => ({ ...before, ...values }));
  const set = (name, value) => setDraft((before) => ({ ...before, values: { ...before.values, [name]: value } }));
  const at = (name) => (error?.param === name ? error.detail : null);
  const named = fields.some((one) => one.name === error?.param) || ["adapter", "model_name", "model", "document_ids", "method"].includes(error?.param);
  const body = bodyOf(draft, fields, models);

  useEffect(() => {
    if (!error) return;
    const wrong = form.current.querySelector("[aria-invalid]");
    wrong?.closest("details")?.setAttribute("open", "");
    wrong?.focus();
  }, [error]);

  const submit = async (event) => {
    event.preventDefault();
    const text = JSON.stringify(body);
    if (request.current.text !== text) request.current = { text, key: crypto.randomUUID?.() ?? String(Math.random()) };
    setBusy(true);
    setError(null);
    try {
      const made = await create("/fine-tuning/setup", body, request.current.key);
      store(DRAFT, null);
      go(href("jobs", made.training_job_id));
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  const draw = (name) => {
    const field = fields.find((one) => one.name === name);
    return html`<${SchemaField} key=${name} field=${field} label=${LABELS[name]} hint=${HINTS[name] ?? field.hint} value=${draft.values[name]} onChange=${(value) => set(name, value)} error=${at(name)} />`;
  };
  return html`<form ref=${form} onSubmit=${submit} noValidate>
    <section class="card" role="group" aria-label="What to learn from"><${Documents} draft=${draft} onChange=${change} error=${at("document_ids")} /></section>
    <section class="card" role="group" aria-label="What to train">
      <h2>What to train</h2>
      <div class="fields"><${Model} draft=${draft} models=${models} onChange=${change} error=${at("model_name") ?? at("model")} /><${Adapter} draft=${draft} adapters=${adapters} onChange=${change} error=${at("adapter")} /></div>
      <div class="fields">${MAIN.map(draw)}</div>
    </section>
    <details class="card">
      <summary>Everything else</summary>
      <div class="fields">
        <${Field} label="Method" type="select" value=${draft.method} onChange=${(method) => change({ method })} error=${at("method")}
          options=${[["supervised", "supervised: answers and texts"], ["dpo", "dpo: preferences between answers"]]} hint="Preferences need jsonl lines with prompt, chosen and rejected." />
        ${fields.map((one) => one.name).filter((name) => !MAIN.includes(name)).map(draw)}
      </div>
    </details>
    ${(draft.isAll || draft.documents.length > 0) && html`<${Estimate} body=${body} />`}
    ${!named && html`<${Problem} error=${error} title="It was not started" />`}
    <div class="actions">
      <button class="primary" disabled=${isBusy || (!draft.isAll && !draft.documents.length)}>Start training</button>
      <button type="button" class="plain" onClick=${() => (setDraft(EMPTY), setError(null))}>Start over</button>
    </div>
  </form>`;
}

/** Only what differs from the API's own defaults. */
function bodyOf(draft, fields, models) {
  const body = chosenOf(draft, models);
  if (draft.method !== "supervised") body.method = { type: draft.method };
  for (const field of fields) {
    const value = valueOf(field, draft.values[field.name]);
    if (value !== undefined && value !== field.initial) body[field.name] = value;
  }
  return body;
}
