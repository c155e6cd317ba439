// A job's events, followed from the first one on: for its curves, and as the list of what happened.
import { follow } from "../api.js";
import { plural, time, timeOfDay } from "./format.js";
import { html, useEffect, useReducer, useRef, useState } from "./html.js";
import { JobLog } from "./joblog.js";
import { useStored } from "./stored.js";

export const ENDED = ["succeeded", "failed", "cancelled"];
const DRAWN_EVERY_MS = 250;

/** `{log, connection}` of the job at `path`, drawn a few times a second. `onStatus` is called when its status changes. */
export function useLog(path, onStatus) {
  const log = useRef(null);
  log.current ??= new JobLog();
  const [, draw] = useReducer((before) => before + 1, 0);
  const [connection, setConnection] = useState("opening");
  useEffect(() => {
    log.current = new JobLog();
    let timer = null;
    const soon = () => {
      timer ??= setTimeout(() => {
        timer = null;
        draw();
      }, DRAWN_EVERY_MS);
    };
    const stop = follow(`${path}/events`, {
      onEvents: (events) => {
        const { statuses } = log.current;
        for (const event of events) log.current.add(event);
        if (log.current.statuses > statuses) onStatus();
        soon();
      },
      onState: (state) => {
        setConnection(state);
        if (state === "ended") onStatus();
      },
    });
    return () => {
      stop();
      clearTimeout(timer);
    };
  }, [path]);
  return { log: log.current, connection };
}

/** Said while the connection is lost. */
export const Lost = ({ connection }) =>
  connection === "waiting" ? html`<p class="warn-box" role="status">The connection is lost; this page comes back by itself.</p>` : null;

export function Events({ log }) {
  const [shown, setShown] = useStored("job-events", "all");
  const chosen = shown === "decisions" ? log.decisions : log.events;
  return html`<section class="card" aria-label="Events">
    <header>
      <h2>What happened</h2>
      <div class="row" role="group" aria-label="Which events">
        ${[["all", "Everything"], ["decisions", `Decisions and warnings (${log.decisions.length})`]].map(
          ([name, words]) => html`<button key=${name} type="button" class="small choice" aria-pressed=${String(shown === name)} onClick=${() => setShown(name)}>${words}</button>`,
        )}
      </div>
    </header>
    ${chosen.length === 0 && html`<p class="muted">${shown === "decisions" ? "Nothing was decided yet." : "Nothing happened yet."}</p>`}
    <ol class="events" tabindex="0" aria-label="What happened">
      ${[...chosen].reverse().map(
        (event) => html`<li key=${event.id} class=${event.level}>
          <time title=${time(event.created_at)}>${timeOfDay(event.created_at)}</time>
          <span class="break">${event.level !== "info" && html`<strong>${event.level === "error" ? "Error: " : "Warning: "}</strong>`}${event.message}</span>
        </li>`,
      )}
    </ol>
    ${shown === "all" && log.numDropped > 0 && html`<p class="hint">${plural(log.numDropped, "earlier event")} left out here; the API has them all.</p>`}
  </section>`;
}
