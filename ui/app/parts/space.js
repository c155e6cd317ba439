// The space of a search: a row for each setting, with the range or the values that are tried.
import { Field } from "./field.js";
import { html, useState } from "./html.js";
import { labelOf } from "./schema.js";

const TYPES = [["float", "numbers from … to"], ["int", "whole numbers from … to"], ["choices", "one of these values"]];
const NOT_SEARCHED = ["model_name", "max_length", "method", "modules_to_save", "trackers"];

/** The space of the API as rows of a form: `[{name, type, low, high, values, log}]`. */
export const draftOf = (space) => Object.entries(space ?? {}).map(([name, one]) => ({ name, type: one.type, low: String(one.low ?? ""), high: String(one.high ?? ""), values: (one.values ?? []).map(written).join(", "), log: Boolean(one.log) }));

/** The rows as the API takes them; what is no number goes as it is, and the API says so. */
export function spaceOf(rows) {
  const number = (text) => (text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text));
  const domain = ({ type, low, high, values, log }) =>
    type === "choices" ? { type, values: values.split(",").map((one) => one.trim()).filter(Boolean).map(read) } : { type, low: number(low), high: number(high), log };
  return Object.fromEntries(rows.map((one) => [one.name, domain(one)]));
}

const written = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function read(text) {
  try {
    return JSON.parse(text); // a number, true, null
  } catch {
    return text;
  }
}

export function Space({ space, names, onChange }) {
  const [added, setAdded] = useState("");
  const free = names.filter((name) => !NOT_SEARCHED.includes(name) && !space.some((one) => one.name === name));
  const change = (name, values) => onChange(space.map((one) => (one.name === name ? { ...one, ...values } : one)));
  const add = () => {
    onChange([...space, { name: added || free[0], type: "choices", low: "", high: "", values: "", log: false }]);
    setAdded("");
  };
  return html`
    ${!space.length && html`<p class="muted">Nothing yet: add a setting.</p>`}
    ${space.map((one) => html`<${Row} key=${one.name} row=${one} onChange=${(values) => change(one.name, values)} onRemove=${() => onChange(space.filter((other) => other !== one))} />`)}
    ${free.length > 0 && html`<div class="filters"><${Field} label="Another setting" type="select" options=${free.map((name) => [name, labelOf(name)])} value=${added || free[0]} onChange=${setAdded} /><button type="button" onClick=${add}>Search it too</button></div>`}
  `;
}

function Row({ row, onChange, onRemove }) {
  const { name, type, low, high, values, log } = row;
  const set = (field) => (value) => onChange({ [field]: value });
  const title = labelOf(name);
  return html`<fieldset class="space-row"><legend>${title}</legend>
    <${Field} label="Values" aria-label=${`${title}: values`} type="select" options=${TYPES} value=${type} onChange=${set("type")} />
    ${type === "choices"
      ? html`<${Field} label="Values between commas" value=${values} onChange=${set("values")} />`
      : html`<${Field} label="From" inputmode="decimal" value=${low} onChange=${set("low")} /><${Field} label="To" inputmode="decimal" value=${high} onChange=${set("high")} /><${Field} label="By orders of magnitude" type="checkbox" value=${log} onChange=${set("log")} />`}
    <button type="button" class="small plain" aria-label=${`Do not search ${title}`} onClick=${onRemove}>×</button>
  </fieldset>`;
}
