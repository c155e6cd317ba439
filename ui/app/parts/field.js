// Form fields: a label, the control, a hint, and the error beside it.
import { html, useMemo, newId } from "./html.js";

/**
 * A labelled control. `type` is an input's, or "select" (with `options`: strings, or `[value, text]`), "textarea" or
 * "checkbox". `onChange` gets the value (checkboxes: true or false). Further properties go to the control.
 */
export function Field({ label, hint = null, error = null, type = "text", value, onChange, options = [], ...more }) {
  const id = useMemo(() => more.id ?? newId("field"), []);
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ") || undefined;
  const common = { ...more, id, "aria-describedby": described, "aria-invalid": error ? "true" : undefined };
  const explained = html`${hint && html`<span class="hint" id=${`${id}-hint`}>${hint}</span>`}
    ${error && html`<span class="field-error" id=${`${id}-error`}>${error}</span>`}`;
  if (type === "checkbox") {
    return html`<div class="field checkbox">
      <label for=${id}><input ...${common} type="checkbox" checked=${value} onChange=${(event) => onChange(event.target.checked)} /> ${label}</label>
      ${explained}
    </div>`;
  }
  const onInput = (event) => onChange(event.target.value);
  let control = html`<input ...${common} type=${type} value=${value} onInput=${onInput} />`;
  if (type === "textarea") control = html`<textarea ...${common} value=${value} onInput=${onInput}></textarea>`;
  if (type === "select") {
    control = html`<select ...${common} value=${value} onChange=${onInput}>
      ${options.map((one) => {
        const [key, text] = Array.isArray(one) ? one : [one, one];
        return html`<option key=${key} value=${key} selected=${key === value}>${text}</option>`;
      })}
    </select>`;
  }
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${control} ${explained}
  </div>`;
}
