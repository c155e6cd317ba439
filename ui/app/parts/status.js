// A job's, document's or version's status as a coloured word; the word alone says it all.
import { html } from "./html.js";

const KINDS = {
  queued: "calm",
  running: "busy",
  pausing: "busy",
  paused: "warn",
  succeeded: "good",
  failed: "bad",
  rejected: "bad",
  cancelled: "calm",
  uploaded: "calm",
  extracted: "good",
  live: "good",
  ready: "good",
  revoked: "bad",
};

export const Status = ({ of, kind = KINDS[of] ?? "calm" }) => html`<span class=${`status ${kind}`}>${of}</span>`;
