// Exports of a version: started in a dialog, and followed in a list of this tab's.
import { address, create, get } from "../api.js";
import { Dialog } from "./dialog.js";
import { Problem } from "./feedback.js";
import { Field } from "./field.js";
import { ENDED } from "./following.js";
import { html, useState } from "./html.js";
import { useLoaded } from "./loading.js";
import { Progress } from "./progress.js";
import { Status } from "./status.js";
import { href } from "../routes.js";

const FORMATS = [["peft", "PEFT's files"], ["merged", "A whole model, the adapter in its weights"], ["gguf", "GGUF, for llama.cpp"], ["hub", "Into a repository of the hub"]];

export function Export({ name, version, onClose, onExported }) {
  const [format, setFormat] = useState("peft");
  const [quantization, setQuantization] = useState("f16");
  const [repository, setRepository] = useState("");
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    const more = format === "gguf" ? { quantization } : format === "hub" ? { repository: repository.trim() } : {};
    try {
      const { job_id: id } = await create("/fine-tuning/exports", { adapter: name, version, format, ...more });
      onExported(id);
      onClose();
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${`Export version ${version}`} onClose=${onClose}>
    <form class="dialog-body" onSubmit=${submit}>
      <${Field} label="As" type="select" options=${FORMATS} value=${format} onChange=${setFormat} />
      ${format === "gguf" && html`<${Field} label="Type of the weights" type="select" options=${["f32", "f16", "bf16", "q8_0", "auto"]} value=${quantization} onChange=${setQuantization} />`}
      ${format === "hub" && html`<${Field} label="Repository" value=${repository} onChange=${setRepository} required placeholder="owner/name" />`}
      <${Problem} error=${error} />
      <button class="primary" disabled=${isBusy}>Export</button>
    </form>
  <//>`;
}

export function Exports({ ids, onForget }) {
  return html`<section class="card" aria-labelledby="exports-title">
    <h2 id="exports-title">Exports of this tab</h2>
    <ul class="plain-list exports">${ids.map((id) => html`<li key=${id}><${Exported} id=${id} onForget=${() => onForget(id)} /></li>`)}</ul>
  </section>`;
}

function Exported({ id, onForget }) {
  const [isOver, setOver] = useState(false);
  const { data: job, error } = useLoaded((signal) => get(`/fine-tuning/jobs/${id}`, {}, signal), [id], { everySeconds: isOver ? null : 1 });
  if (job && !isOver && ENDED.includes(job.status)) setOver(true);
  return html`
    <a class="break" href=${href("jobs", id)}>${id}</a>
    ${job && html`<${Status} of=${job.status} />`}
    ${job && !ENDED.includes(job.status) && html`<${Progress} value=${null} label=${`Progress of ${id}`} />`}
    ${job?.status === "succeeded" && job.result?.filename && html`<a class="button small" href=${address(`/fine-tuning/exports/${id}/content`)} download=${job.result.filename}>Download ${job.result.filename}</a>`}
    ${job?.error && html`<span class="field-error">${job.error.detail} <code>${job.error.code}</code></span>`}
    ${error && html`<span class="field-error">${error.detail}</span>`}
    ${(error || isOver) && html`<button type="button" class="small plain" aria-label=${`Take ${id} off this list`} onClick=${onForget}>×</button>`}
  `;
}
