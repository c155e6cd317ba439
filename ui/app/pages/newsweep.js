// A new search: on what, which settings within which bounds, and how much may be tried. It shares the draft of Train.
import { create } from "../api.js";
import { Adapter, chosenOf, Documents, DRAFT, EMPTY, Model, useChoices } from "../parts/choosing.js";
import { Empty, Loading, Problem } from "../parts/feedback.js";
import { Field } from "../parts/field.js";
import { html, useRef, useState } from "../parts/html.js";
import { SchemaField } from "../parts/schemafield.js";
import { fieldsOf, labelOf, valueOf } from "../parts/schema.js";
import { draftOf, Space, spaceOf } from "../parts/space.js";
import { useStored } from "../parts/stored.js";
import { go, href } from "../routes.js";

const BUDGET = ["num_trials", "num_parallel", "timeout_seconds", "sampler", "pruner", "seed"];
const HINTS = { num_trials: "Trainings at most.", num_parallel: "At once; as many as there are training workers.", timeout_seconds: "No trial begins after it.", pruner: "Ends hopeless trials early." };

export function NewSweep() {
  const loaded = useChoices();
  return html`
    <div class="page-head"><div>
      <p class="small"><a href=${href("sweeps")}>Sweeps</a></p>
      <h1 tabindex="-1">New search</h1>
      <p>Every trial is a training. They are compared by their loss on the same held-out examples; the best becomes a version and goes through the gate.</p>
    </div></div>
    <${Problem} error=${loaded.error} />
    ${!loaded.data && !loaded.error && html`<${Loading} what="what can be chosen" />`}
    ${loaded.data && !loaded.data.hasDocuments && html`<${Empty} title="Nothing to learn from yet" action=${html`<a class="button primary" href=${href("documents")}>Add documents</a>`}>Upload some documents first.<//>`}
    ${loaded.data?.hasDocuments && html`<${Form} ...${loaded.data} />`}
  `;
}

function Form({ schemas, models, adapters }) {
  const schema = schemas.SweepRequest;
  const searched = fieldsOf(schemas.SweepConfig, []);
  const [draft, setDraft] = useStored(DRAFT, EMPTY);
  const [space, setSpace] = useStored("sweep-space", draftOf(schema.properties.space.default));
  const [budget, setBudget] = useStored("sweep-budget", {});
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const request = useRef({ text: "", key: "" });
  const change = (values) => setDraft((before) => ({ ...before, ...values }));
  const fields = fieldsOf(schema, []).filter((one) => BUDGET.includes(one.name));
  const at = (name) => (error?.param === name ? error.detail : null);
  const isNamed = [...BUDGET, "document_ids", "model", "model_name", "adapter"].includes(error?.param);

  const submit = async (event) => {
    event.preventDefault();
    const { model, ...chosen } = chosenOf(draft, models);
    const body = { ...chosen, ...(model ? { config: { model_name: model } } : {}), space: spaceOf(space) };
    for (const field of fields) {
      const value = valueOf(field, budget[field.name]);
      if (value !== undefined) body[field.name] = value;
    }
    const text = JSON.stringify(body);
    if (request.current.text !== text) request.current = { text, key: crypto.randomUUID?.() ?? String(Math.random()) };
    setBusy(true);
    setError(null);
    try {
      go(href("sweeps", (await create("/fine-tuning/sweeps", body, request.current.key)).job_id));
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`<form onSubmit=${submit} noValidate>
    <section class="card" role="group" aria-label="What to learn from"><${Documents} draft=${draft} onChange=${change} error=${at("document_ids")} /></section>
    <section class="card" role="group" aria-label="What to train"><h2>What to train</h2>
      <div class="fields"><${Model} draft=${draft} models=${models} onChange=${change} error=${at("model_name") ?? at("model")} /><${Adapter} draft=${draft} adapters=${adapters} onChange=${change} error=${at("adapter")} /></div>
    </section>
    <section class="card" role="group" aria-label="What is searched"><h2>What is searched</h2>
      <${Space} space=${space} names=${searched.map((one) => one.name)} onChange=${setSpace} />
    </section>
    <section class="card" role="group" aria-label="How much is tried"><h2>How much is tried</h2>
      <div class="fields">${fields.map((field) => html`<${SchemaField} key=${field.name} field=${field} label=${labelOf(field.name)} hint=${HINTS[field.name] ?? null} value=${budget[field.name]} onChange=${(value) => setBudget((before) => ({ ...before, [field.name]: value }))} error=${at(field.name)} />`)}</div>
    </section>
    <${Problem} error=${isNamed ? null : error} title="It was not started" />
    <div class="actions">
      <button class="primary" disabled=${isBusy || !space.length || (!draft.isAll && !draft.documents.length)}>Start the search</button>
      <button type="button" class="plain" onClick=${() => (setSpace(draftOf(schema.properties.space.default)), setBudget({}), setError(null))}>Start over</button>
    </div>
  </form>`;
}
