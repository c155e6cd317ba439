// Playground: a conversation with a model, or with two side by side on the same questions.
import { get, post } from "../api.js";
import { ask, bodyOf } from "../parts/asking.js";
import { attempt, Problem } from "../parts/feedback.js";
import { Field } from "../parts/field.js";
import { duration, short } from "../parts/format.js";
import { html, useEffect, useRef, useState } from "../parts/html.js";
import { all, useLoaded } from "../parts/loading.js";
import { useStored } from "../parts/stored.js";
import { href, useQuery } from "../routes.js";

const OPTIONS = { temperature: "0", maxTokens: "128", seed: "" };
const UNFINISHED = { state: "stopped", wasCut: true };

export default function Playground() {
  const [model, setModel] = useQuery("model");
  const [against, setAgainst] = useQuery("against");
  const [turns, setTurns] = useStored("playground:turns", []);
  const [options, setOptions] = useStored("playground:options", OPTIONS);
  const [question, setQuestion] = useStored("playground:question", "");
  const [isWriting, setWriting] = useState(false);
  const stopping = useRef(null);
  const known = useLoaded(answerers, []);
  const first = model || known.data?.initial || "";
  const asked = [first, ...(against ? [against] : [])];

  // What was being written when the page was left stays as it was.
  useEffect(() => {
    setTurns((before) => before.map((turn) => ({ ...turn, answers: turn.answers.map((one) => (one.state === "writing" ? { ...one, ...UNFINISHED } : one)) })));
    return () => stopping.current?.abort();
  }, []);

  const submit = async (event) => {
    event?.preventDefault();
    const text = question.trim();
    if (!text || isWriting || !first) return;
    const turn = turns.length;
    const stopper = (stopping.current = new AbortController());
    setWriting(true);
    setQuestion("");
    setTurns([...turns, { question: text, answers: asked.map((one) => ({ model: one, text: "", state: "writing" })) }]);
    const change = (side) => (values) =>
      setTurns((before) => before.map((one, i) => (i === turn ? { ...one, answers: one.answers.map((answer, j) => (j === side ? { ...answer, ...values } : answer)) } : one)));
    await Promise.all(
      asked.map((one, side) => ask(bodyOf(one, [...said(turns, side), { role: "user", content: text }], options), { signal: stopper.signal, onChange: calmly(change(side)) })),
    );
    setWriting(false);
  };

  const rate = async (turn, side, thumb, correction = null) => {
    const { id } = turns[turn].answers[side];
    let row = null;
    const isKept = await attempt(async () => (row = await post(`/fine-tuning/answers/${id}/feedback`, { thumb, ...(correction && { correction }) })));
    if (!isKept) return;
    const values = { thumb, correction, mayCorrect: row.query !== null && row.answer !== null };
    setTurns((before) => before.map((one, i) => (i === turn ? { ...one, answers: one.answers.map((answer, j) => (j === side ? { ...answer, ...values } : answer)) } : one)));
  };

  return html`
    <div class="page-head">
      <div>
        <h1 tabindex="-1">Playground</h1>
        <p>Ask a model, or two side by side: the base against what was learned, or one version against another.</p>
      </div>
      ${turns.length > 0 && html`<button type="button" disabled=${isWriting} onClick=${() => setTurns([])}>New conversation</button>`}
    </div>
    <${Problem} error=${known.error} />
    <div class="sides ${against ? "two" : ""}">
      <${Side} label="Model" known=${known.data} value=${first} onChange=${setModel} />
      ${against
        ? html`<${Side} label="Against" known=${known.data} value=${against} onChange=${setAgainst} onRemove=${() => setAgainst("")} />`
        : html`<button type="button" class="beside" disabled=${!known.data} onClick=${() => setAgainst(known.data.other(first))}>Compare with another</button>`}
    </div>
    <${Conversation} turns=${turns} onRate=${rate} hasModels=${known.data?.groups.adapters.length > 0} />
    <form class="card ask" onSubmit=${submit}>
      <${Field} label="Question" type="textarea" rows="2" value=${question} onChange=${setQuestion} placeholder="Enter sends, Shift and Enter begin a new line"
        onKeyDown=${(event) => event.key === "Enter" && !event.shiftKey && !event.isComposing && submit(event)} />
      <div class="row">
        ${isWriting
          ? html`<button type="button" class="danger" onClick=${() => stopping.current.abort()}>Stop</button>`
          : html`<button class="primary" disabled=${!question.trim() || !first}>Ask</button>`}
      </div>
      <details>
        <summary>How the answer is chosen</summary>
        <div class="fields">
          <${Field} label="Temperature" type="number" min="0" max="2" step="0.1" value=${options.temperature} onChange=${(temperature) => setOptions({ ...options, temperature })} hint="0: always the likeliest token." />
          <${Field} label="Most tokens" type="number" min="1" max="8192" value=${options.maxTokens} onChange=${(maxTokens) => setOptions({ ...options, maxTokens })} />
          <${Field} label="Seed" type="number" min="0" value=${options.seed} onChange=${(seed) => setOptions({ ...options, seed })} hint="The same seed draws the same answer." />
        </div>
      </details>
    </form>
  `;
}

/** The base models and adapters, and what is asked before anybody chooses. */
async function answerers(signal) {
  const [models, adapters] = await Promise.all([get("/models", {}, signal), all("/fine-tuning/adapters", {}, { signal })]);
  const bases = models.data.filter((one) => !one.is_pattern).map((one) => one.id);
  const live = adapters.filter((one) => one.live_version !== null);
  const initial = live[0]?.name ?? models.data.find((one) => one.default)?.id ?? bases[0];
  const baseOf = (name) => adapters.find((one) => one.name === name.split("@")[0])?.model;
  const other = (name) => baseOf(name) ?? live[0]?.name ?? bases.find((one) => one !== name) ?? name;
  return { groups: { bases, adapters }, initial, other };
}

/** The conversation as one side has had it. */
function said(turns, side) {
  return turns.flatMap(({ question, answers }) => {
    const answer = answers[side] ?? answers[0];
    return answer.text ? [{ role: "user", content: question }, { role: "assistant", content: answer.text }] : [];
  });
}

/** Draws at most once a frame, whatever comes in between; nothing is lost. */
function calmly(call) {
  let waiting = null;
  return (values) => {
    if (waiting) return Object.assign(waiting, values);
    waiting = { ...values };
    setTimeout(() => {
      const ready = waiting;
      waiting = null;
      call(ready);
    }, 16);
  };
}

function Side({ label, known, value, onChange, onRemove = null }) {
  const [name, number] = value.includes("@") ? value.split("@") : [value, ""];
  const adapter = known?.groups.adapters.find((one) => one.name === name);
  const { data } = useLoaded((signal) => (adapter ? get(`/fine-tuning/adapters/${encodeURIComponent(name)}`, {}, signal) : Promise.resolve(null)), [adapter?.name]);
  const names = known ? [...known.groups.adapters.map((one) => one.name), ...known.groups.bases] : [];
  const options = [...known?.groups.adapters.map((one) => [one.name, one.name]) ?? [], ...known?.groups.bases.map((one) => [one, `${one} (base model)`]) ?? []];
  if (name && !names.includes(name)) options.unshift([name, name]);
  const versions = [["", "live"], ...(data?.versions ?? []).map((one) => [String(one.version), `version ${one.version}${one.live ? ", live" : ""}`])];
  return html`<div class="side">
    <${Field} label=${label} type="select" options=${options} value=${name} onChange=${onChange} />
    ${adapter && html`<${Field} label=${`${label}: version`} type="select" options=${versions} value=${number} onChange=${(one) => onChange(one ? `${name}@${one}` : name)} />`}
    ${onRemove && html`<button type="button" class="plain" aria-label="Take the second model away" onClick=${onRemove}>×</button>`}
  </div>`;
}

function Conversation({ turns, onRate, hasModels }) {
  const end = useRef(null);
  useEffect(() => end.current?.scrollIntoView({ block: "nearest" }), [turns]);
  if (!turns.length) {
    return html`<div class="empty">
      <h2>Nothing asked yet</h2>
      <p>${hasModels ? "Ask something that your documents answer." : html`No adapter has been trained yet: the base model answers. `}</p>
      ${!hasModels && html`<a class="button" href=${href("train")}>Train an adapter</a>`}
    </div>`;
  }
  return html`<ol class="turns" aria-label="Conversation">
    ${turns.map(
      (turn, i) => html`<li key=${i}>
        <p class="question"><span class="unseen">Question: </span>${turn.question}</p>
        <div class="answers">${turn.answers.map((answer, side) => html`<${Answer} key=${side} answer=${answer} onRate=${(...said) => onRate(i, side, ...said)} />`)}</div>
      </li>`,
    )}
    <li ref=${end} aria-hidden="true"></li>
  </ol>`;
}

function Answer({ answer, onRate }) {
  const { text, state, by, error } = answer;
  return html`<article class="card answer" aria-label=${`Answer of ${answer.model}`} aria-busy=${String(state === "writing")}>
    <header><strong class="break">${giverOf(answer)}</strong>${by?.fallback && html`<span class="status warn">base model instead</span>`}</header>
    ${by?.fallback && html`<p class="warn-box small">${by.fallback_reason ?? "The adapter could not answer, so the base model did."}</p>`}
    ${text && html`<p class="words">${text}</p>`}
    ${state === "writing" && !text && html`<p class="muted">…</p>`}
    ${state === "done" && !text && html`<p class="muted">It answered with nothing.</p>`}
    ${state === "stopped" && html`<p class="muted small">${answer.wasCut ? "Left before its end: ask again." : "Stopped."}</p>`}
    <${Problem} error=${error} />
    ${state === "done" && html`<footer>
      <span class="small muted">${timesOf(answer)}</span>
      <span class="actions">
        <button type="button" class="small plain" aria-pressed=${String(answer.thumb === "up")} onClick=${() => onRate("up")}>Good</button>
        <button type="button" class="small plain" aria-pressed=${String(answer.thumb === "down")} onClick=${() => onRate("down", answer.correction)}>Bad</button>
      </span>
    </footer>`}
    ${state === "done" && answer.thumb === "down" && answer.mayCorrect && html`<${Correction} kept=${answer.correction} onKeep=${(words) => onRate("down", words)} />`}
  </article>`;
}

/** What the answer should have been: kept beside it, to be trained on. */
function Correction({ kept, onKeep }) {
  const [words, setWords] = useState(kept ?? "");
  const keep = (event) => {
    event.preventDefault();
    onKeep(words.trim());
  };
  return html`<form class="correction" onSubmit=${keep}>
    <${Field} label="What it should have said" type="textarea" rows="2" maxlength="10000" value=${words} onChange=${setWords} hint="Kept beside the answer, to be exported as a training file." />
    <div class="row"><button class="small" disabled=${!words.trim() || words.trim() === kept}>Keep the correction</button>${kept && words.trim() === kept && html`<span class="small muted" role="status">It is kept.</span>`}</div>
  </form>`;
}

function giverOf({ model, by }) {
  if (!by) return model;
  return by.adapter ? `${by.adapter}, version ${by.version}` : `${by.model}, base model`;
}

function timesOf({ firstToken, total, tokens, finish }) {
  const parts = [];
  if (firstToken) parts.push(`first token ${duration(firstToken)}`);
  parts.push(`in all ${duration(total)}`);
  if (tokens > 1 && firstToken && total > firstToken) parts.push(`${short((tokens - 1) / (total - firstToken))} tokens/s`);
  if (finish === "length") parts.push("cut at its most tokens");
  return parts.join(" · ");
}
