// Starts an evaluation of an adapter, and says in a few words what the latest one found of each version.
import { create, get } from "../api.js";
import { Dialog } from "./dialog.js";
import { Loading, Problem } from "./feedback.js";
import { Field } from "./field.js";
import { html, useState } from "./html.js";
import { all, useLoaded } from "./loading.js";
import { metricOf } from "./metrics.js";
import { Verdict } from "./pairs.js";
import { go, href } from "../routes.js";

const LATEST = 10;

/** Files of questions; where the API knows no purposes, none are. */
export const useQuestionFiles = () => useLoaded((signal) => all("/documents", { purpose: "questions" }, { most: 200, signal }).then((rows) => rows.filter((one) => one.purpose === "questions")), []);

export function QuestionFiles({ files, chosen, onChange }) {
  if (!files.data) return files.error ? html`<${Problem} error=${files.error} />` : html`<${Loading} what="files of questions" />`;
  if (!files.data.length) return html`<p class="hint">There are no files of questions: upload one on the page of documents, as jsonl or csv with the columns question and answer.</p>`;
  const toggle = (id) => (isChosen) => onChange(isChosen ? [...chosen, id] : chosen.filter((one) => one !== id));
  return files.data.map((one) => html`<${Field} key=${one.id} label=${one.filename} type="checkbox" value=${chosen.includes(one.id)} onChange=${toggle(one.id)} />`);
}

export function Evaluate({ adapter, onClose }) {
  const numbers = adapter.versions.map((one) => one.version);
  const [versions, setVersions] = useState([adapter.live_version ?? numbers[0]]);
  const [hasRag, setRag] = useState(false);
  const [questions, setQuestions] = useState([]);
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const files = useQuestionFiles();
  const toggle = (number) => (isChosen) => setVersions(isChosen ? [...versions, number].sort((a, b) => a - b) : versions.filter((one) => one !== number));
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const made = await create("/fine-tuning/evaluations", { adapter: adapter.name, versions, rag: hasRag, question_document_ids: questions });
      go(href("evaluations", made.job_id));
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${`Evaluate ${adapter.name}`} onClose=${onClose}>
    <form class="dialog-body" onSubmit=${submit}>
      <p>The base model and these versions answer the same held-out examples and questions.</p>
      <fieldset class="field"><legend>Versions</legend><div class="row">${numbers.map((one) => html`<${Field} key=${one} label=${`version ${one}`} type="checkbox" value=${versions.includes(one)} onChange=${toggle(one)} />`)}</div></fieldset>
      <${Field} label="Also from the documents (RAG), with and without the newest of them" type="checkbox" value=${hasRag} onChange=${setRag} />
      <fieldset class="field"><legend>Files of questions</legend><${QuestionFiles} files=${files} chosen=${questions} onChange=${setQuestions} /></fieldset>
      <${Problem} error=${error} />
      <button class="primary" disabled=${isBusy || !versions.length}>Evaluate</button>
    </form>
  <//>`;
}

/** By version, what the latest evaluation that has it found: `{id, pair}`. */
export function useVerdicts(name) {
  const load = async (signal) => {
    const { data } = await get("/fine-tuning/evaluations", { adapter: name, limit: LATEST }, signal);
    const found = {};
    for (const { id, status, columns, verdicts } of data) {
      if (status !== "succeeded") continue;
      for (const label of columns) found[label] ??= { id, pair: verdicts?.find((one) => one.candidate === label) ?? null };
    }
    return found;
  };
  return useLoaded(load, [name], { everySeconds: 30 }).data ?? {};
}

/** One version's short form, a link to all of it. */
export function Found({ found }) {
  if (!found) return null;
  const { id, pair } = found;
  return html`<div><a class="small" href=${href("evaluations", id)}>${pair ? `${metricOf(pair.metric).name} beside ${pair.baseline}` : "Evaluated"}</a>${pair && html`<div><${Verdict} of=${pair.verdict} /></div>`}</div>`;
}
