// A real `<dialog>`: the browser keeps the focus in it, closes it by Escape, and gives the focus back.
import { html, useEffect, useMemo, useRef, useState, newId } from "./html.js";
import { Problem } from "./feedback.js";

export function Dialog({ title, onClose, children, wide = false }) {
  const box = useRef(null);
  const id = useMemo(() => newId("dialog"), []);
  useEffect(() => {
    const before = document.activeElement;
    box.current.showModal();
    return () => before?.isConnected && before.focus();
  }, []);
  return html`<dialog ref=${box} class=${wide ? "wide" : ""} aria-labelledby=${id} onClose=${onClose}>
    <header>
      <h2 id=${id}>${title}</h2>
      <button type="button" class="plain" aria-label="Close" onClick=${() => box.current.close()}>×</button>
    </header>
    ${children}
  </dialog>`;
}

/** Asks before `onConfirm` (which may fail, and then says why) runs. */
export function Confirm({ title, children, action, danger = false, onConfirm, onClose }) {
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const run = async () => {
    setBusy(true);
    try {
      await onConfirm();
      onClose();
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <div class="dialog-body">${children}<${Problem} error=${error} /></div>
    <footer>
      <button type="button" onClick=${onClose}>Keep it as it is</button>
      <button type="button" class=${danger ? "danger" : "primary"} disabled=${isBusy} onClick=${run}>${action}</button>
    </footer>
  <//>`;
}
