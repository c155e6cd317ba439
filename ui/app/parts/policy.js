// Which new versions of an adapter go live by themselves: shown, and changed.
import { request } from "../api.js";
import { Dialog } from "./dialog.js";
import { Problem, say } from "./feedback.js";
import { Field } from "./field.js";
import { figure, plural } from "./format.js";
import { html, useState } from "./html.js";

const MODES = [["if_better", "if better: held-out loss lower than its rivals'"], ["always", "always: every new version"], ["manual", "manual: by hand only"]];
const RIVALS = [["base", "the base model"], ["live", "the live version"]];

function words({ mode, min_improvement: least, min_examples: few, against }) {
  if (mode === "manual") return "New versions wait until somebody promotes them.";
  if (mode === "always") return "Every new version goes live as soon as it is published.";
  const rivals = RIVALS.filter(([name]) => against.includes(name)).map(([, one]) => one);
  const by = least > 0 ? ` by ${figure(least)} nats or more` : "";
  return `A new version goes live if its held-out loss is lower than that of ${rivals.join(" and ") || "nobody"}${by}. With fewer than ${plural(few, "held-out example")}, the losses alone decide.`;
}

export function Policy({ path, policy, onChanged }) {
  const [isOpen, setOpen] = useState(false);
  return html`<section class="card" aria-labelledby="policy-title">
    <header><h2 id="policy-title">What goes live</h2><button type="button" class="small" onClick=${() => setOpen(true)}>Change the policy</button></header>
    <p>${words(policy)}</p>
    ${isOpen && html`<${Change} path=${path} policy=${policy} onClose=${() => setOpen(false)} onChanged=${onChanged} />`}
  </section>`;
}

function Change({ path, policy, onClose, onChanged }) {
  const [draft, setDraft] = useState({ ...policy, min_improvement: String(policy.min_improvement), min_examples: String(policy.min_examples) });
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const set = (name) => (value) => setDraft((before) => ({ ...before, [name]: value }));
  const at = (name) => (error?.param?.startsWith(name) ? error.detail : null);
  const rival = (name) => (isChosen) => set("against")(RIVALS.map(([one]) => one).filter((one) => (one === name ? isChosen : draft.against.includes(one))));
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await request("PUT", `${path}/policy`, { body: { ...draft, min_improvement: Number(draft.min_improvement), min_examples: Number(draft.min_examples) } });
      say("The policy holds from the next version on.");
      onChanged();
      onClose();
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`<${Dialog} title="What goes live" onClose=${onClose}>
    <form class="dialog-body" onSubmit=${submit} noValidate>
      <${Field} label="New versions go live" type="select" options=${MODES} value=${draft.mode} onChange=${set("mode")} />
      ${draft.mode === "if_better" && html`
        <fieldset class="field"><legend>Rivals</legend><div class="row">${RIVALS.map(([name, label]) => html`<${Field} key=${name} label=${label} type="checkbox" value=${draft.against.includes(name)} onChange=${rival(name)} />`)}</div></fieldset>
        <${Field} label="Least improvement" type="number" min="0" step="any" value=${draft.min_improvement} onChange=${set("min_improvement")} error=${at("min_improvement")} hint="Nats a token, at the nearer end of the interval." />
        <${Field} label="Enough examples" type="number" min="1" step="1" value=${draft.min_examples} onChange=${set("min_examples")} error=${at("min_examples")} hint="With fewer, the losses alone decide." />`}
      <${Problem} error=${error && !at("min_") ? error : null} />
      <button class="primary" disabled=${isBusy}>Keep this policy</button>
    </form>
  <//>`;
}
