// One field of a form whose shape the API's description gives.
import { Field } from "./field.js";
import { html, newId, useMemo } from "./html.js";
import { labelOf } from "./schema.js";

export function SchemaField({ field, value, onChange, error, hint = field.hint, label = labelOf(field.name) }) {
  const common = { label, hint, error, onChange, name: field.name };
  const initial = field.initial === null ? "" : String(field.initial);
  if (field.kind === "boolean") return html`<${Field} ...${common} type="checkbox" value=${value ?? field.initial} />`;
  if (field.kind === "choice") return html`<${Field} ...${common} type="select" options=${field.options} value=${value ?? initial} />`;
  if (field.kind === "perhaps") {
    return html`<${Field} ...${common} type="select" options=${[["", "decided by itself"], ["yes", "on"], ["no", "off"]]} value=${value ?? ""} />`;
  }
  if (field.kind === "several") return html`<${Several} ...${common} options=${field.options} value=${value ?? []} />`;
  const isNumber = field.kind === "integer" || field.kind === "number";
  const asked = isNumber ? { type: "number", step: field.kind === "integer" ? 1 : "any", ...field.limits, inputmode: field.kind === "integer" ? "numeric" : "decimal" } : {};
  return html`<${Field} ...${common} ...${asked} value=${value ?? initial} placeholder=${field.isOptional ? "not set" : undefined} />`;
}

function Several({ label, hint, error, options, value, onChange, name }) {
  const id = useMemo(() => newId("several"), []);
  const change = (one, isChosen) => onChange(isChosen ? [...value, one] : value.filter((other) => other !== one));
  return html`<fieldset class="field" aria-describedby=${hint || error ? id : undefined}>
    <legend>${label}</legend>
    <div class="row">${options.map((one) => html`<${Field} key=${one} label=${one} type="checkbox" name=${name} value=${value.includes(one)} onChange=${(isChosen) => change(one, isChosen)} />`)}</div>
    <span id=${id}>${hint && html`<span class="hint">${hint}</span>`}${error && html`<span class="field-error">${error}</span>`}</span>
  </fieldset>`;
}
