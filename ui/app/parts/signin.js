// Signing in: the key goes to the service once, which gives it back as a cookie that no script can read.
import { signIn } from "../api.js";
import { Problem } from "./feedback.js";
import { Field } from "./field.js";
import { html, useState } from "./html.js";

export function SignIn({ reason, onDone }) {
  const [key, setKey] = useState("");
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await signIn(key.trim());
      onDone();
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`<section class="signin card" aria-labelledby="signin-title">
    <h1 id="signin-title" tabindex="-1">Sign in</h1>
    <p>${reason ?? "This service needs an API key."}</p>
    <form onSubmit=${submit}>
      <${Field} label="API key" type="password" value=${key} onChange=${setKey} autocomplete="current-password" required
        hint="It begins with ft-. The browser keeps it until it is closed, where no script can read it." error=${error?.status === 422 ? "This is no API key." : null} />
      ${error?.status !== 422 && html`<${Problem} error=${error} />`}
      <button class="primary" disabled=${isBusy || !key.trim()}>Sign in</button>
    </form>
  </section>`;
}
