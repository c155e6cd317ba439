// The trials of a search as a table: sorted by any column, a page at a time, however many there are.
import { duration, figure } from "./format.js";
import { html, useMemo, useState } from "./html.js";
import { labelOf } from "./schema.js";
import { Status } from "./status.js";
import { Pager, Table } from "./table.js";
import { valueWords } from "./trialplots.js";
import { href } from "../routes.js";

const AT_ONCE = 25;
const KINDS = { complete: "good", running: "busy", pruned: "calm", failed: "bad", cancelled: "calm" };

export function Trials({ trials, best, at, onLook }) {
  const [sorting, setSorting] = useState({ title: "Held-out loss", isDown: false });
  const [number, setNumber] = useState(1);
  const columns = useMemo(() => columnsOf(trials), [trials]);
  const rows = useMemo(() => sorted(trials, columns, sorting), [trials, columns, sorting]);
  const pages = Math.max(Math.ceil(rows.length / AT_ONCE), 1);
  const shown = Math.min(number, pages);
  const pager = { number: shown, hasNewer: shown > 1, hasOlder: shown < pages, newer: () => setNumber(shown - 1), older: () => setNumber(shown + 1), words: ["← Back", "On →"] };
  const sort = (title) => {
    setSorting((before) => ({ title, isDown: before.title === title && !before.isDown }));
    setNumber(1);
  };
  return html`
    <${Table} caption="Trials" rows=${rows.slice((shown - 1) * AT_ONCE, shown * AT_ONCE)} rowKey=${(row) => row.number} columns=${columns} sorting=${sorting} onSort=${sort}
      rowClass=${(row) => [row.number === best?.number && "best", row.number === at && "looked"].filter(Boolean).join(" ")} onRow=${(row) => onLook(row.number)} />
    <${Pager} pager=${pager} what="trials" />`;
}

function columnsOf(trials) {
  const names = [...new Set(trials.flatMap((one) => Object.keys(one.params)))];
  return [
    { title: "Trial", isHeading: true, by: (one) => one.number, cell: (one) => (one.job_id ? html`<a href=${href("jobs", one.job_id)} aria-label=${`Trial ${one.number}, its training`}>${one.number}</a>` : one.number) },
    { title: "State", by: (one) => one.state, cell: (one) => html`<${Status} of=${one.state} kind=${KINDS[one.state] ?? "calm"} />${one.error && html`<div class="field-error">${one.error.detail ?? one.error}</div>`}` },
    { title: "Held-out loss", className: "numeric", by: (one) => one.value, cell: (one) => figure(one.value) },
    ...names.map((name) => ({ title: labelOf(name), className: "numeric", by: (one) => one.params[name], cell: (one) => (name in one.params ? valueWords(one.params[name]) : "") })),
    { title: "Took", className: "numeric", by: (one) => one.seconds, cell: (one) => duration(one.seconds) },
  ];
}

/** Of equal ones the lower number first; what has no value comes last, whichever way it is sorted. */
function sorted(trials, columns, { title, isDown }) {
  const { by } = columns.find((one) => one.title === title) ?? columns[0];
  const compare = (a, b) => {
    const [left, right] = [by(a), by(b)];
    const [isLeftNone, isRightNone] = [left ?? null, right ?? null].map((one) => one === null);
    if (isLeftNone || isRightNone) return isLeftNone - isRightNone || a.number - b.number;
    const order = typeof left === "number" && typeof right === "number" ? left - right : valueWords(left).localeCompare(valueWords(right));
    return (isDown ? -order : order) || a.number - b.number;
  };
  return [...trials].sort(compare);
}
