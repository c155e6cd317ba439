// "Tune, RAG, both or neither?": asked with documents and questions; the evaluation that comes of it has the answer.
import { create } from "../api.js";
import { Adapter, chosenOf, Documents, EMPTY, Model, useChoices } from "../parts/choosing.js";
import { QuestionFiles, useQuestionFiles } from "../parts/evaluate.js";
import { Empty, Loading, Problem } from "../parts/feedback.js";
import { Field } from "../parts/field.js";
import { html, useState } from "../parts/html.js";
import { useStored } from "../parts/stored.js";
import { go, href } from "../routes.js";

const INITIAL = { ...EMPTY, adapter: "advice", way: "made", numQuestions: "40", file: [] };

export default function Advice() {
  const loaded = useChoices();
  return html`
    <div class="page-head"><div>
      <h1 tabindex="-1">Tune, RAG, both or neither?</h1>
      <p>The base model, answers from the documents (RAG), a tuned model and both together are asked the same questions. What is worth doing follows from the figures by a written rule, and may be neither.</p>
    </div></div>
    <${Problem} error=${loaded.error} />
    ${!loaded.data && !loaded.error && html`<${Loading} what="what can be chosen" />`}
    ${loaded.data && !loaded.data.hasDocuments && html`<${Empty} title="No documents yet" action=${html`<a class="button primary" href=${href("documents")}>Add documents</a>`}>Upload what the answers are in first.<//>`}
    ${loaded.data?.hasDocuments && html`<${Form} ...${loaded.data} />`}
  `;
}

function Form({ models, adapters }) {
  const [draft, setDraft] = useStored("advice-draft", INITIAL);
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const files = useQuestionFiles();
  const change = (values) => setDraft((before) => ({ ...before, ...values }));
  const at = (name) => (error?.param === name ? error.detail : null);
  const isMade = draft.way !== "file";
  const submit = async (event) => {
    event.preventDefault();
    const questions = isMade ? { num_questions: Number(draft.numQuestions) } : { question_document_id: draft.file[0] };
    setBusy(true);
    setError(null);
    try {
      go(href("evaluations", (await create("/fine-tuning/advice", { ...chosenOf(draft, models), ...questions })).evaluation_job_id));
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  const ways = [["made", "Make questions from the documents: by the model that is set up for it, else words that are left out of sentences"], ["file", "Use a file of questions"]];
  return html`<form onSubmit=${submit} noValidate>
    <section class="card" role="group" aria-label="What to learn from"><${Documents} draft=${draft} onChange=${change} error=${at("document_ids")} /></section>
    <section class="card" role="group" aria-label="What is asked"><h2>What is asked</h2>
      <div class="stack">${ways.map(([way, words]) => html`<label key=${way} class="radio"><input type="radio" name="way" checked=${draft.way === way} onChange=${() => change({ way })} /> ${words}</label>`)}</div>
      ${isMade
        ? html`<div class="fields"><${Field} label="Questions" type="number" min="1" value=${draft.numQuestions} onChange=${(numQuestions) => change({ numQuestions })} error=${at("num_questions")} hint="With fewer than 20, nothing can be told. What is tested is never learned." /></div>`
        : html`<${QuestionFiles} files=${files} chosen=${draft.file} onChange=${(chosen) => change({ file: chosen.slice(-1) })} />`}
    </section>
    <section class="card" role="group" aria-label="What to train"><h2>What to train</h2>
      <div class="fields"><${Model} draft=${draft} models=${models} onChange=${change} error=${at("model_name") ?? at("model")} /><${Adapter} draft=${draft} adapters=${adapters} onChange=${change} error=${at("adapter")} /></div>
    </section>
    <${Problem} error=${["document_ids", "num_questions", "model", "model_name", "adapter"].includes(error?.param) ? null : error} title="It was not started" />
    <div class="actions"><button class="primary" disabled=${isBusy || (!isMade && !draft.file.length) || (!draft.isAll && !draft.documents.length)}>Find out</button></div>
  </form>`;
}
