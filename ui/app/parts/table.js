// Tables that turn into cards on a phone, and the two buttons that page through a list.
import { html } from "./html.js";

/**
 * `columns`: `{title, cell(row), className?, isHeading?}`. The heading's column names the row for screen readers.
 * `rowKey(row)` is unique.
 */
export function Table({ caption, columns, rows, rowKey }) {
  return html`<div class="table-box">
    <table>
      <caption class="unseen">${caption}</caption>
      <thead>
        <tr>${columns.map((one) => html`<th key=${one.title} scope="col" class=${one.className ?? ""}>${one.title}</th>`)}</tr>
      </thead>
      <tbody>
        ${rows.map(
          (row) => html`<tr key=${rowKey(row)}>
            ${columns.map((one) =>
              one.isHeading
                ? html`<th key=${one.title} scope="row" class=${one.className ?? ""}>${one.cell(row)}</th>`
                : html`<td key=${one.title} class=${one.className ?? ""} data-title=${one.title}>${one.cell(row)}</td>`,
            )}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** `pager` of `usePages`. Draws nothing where one page is all. */
export function Pager({ pager, what = "entries" }) {
  if (!pager.hasNewer && !pager.hasOlder) return null;
  return html`<nav class="pager" aria-label=${`Pages of ${what}`}>
    <button type="button" disabled=${!pager.hasNewer} onClick=${pager.newer}>← Newer</button>
    <span>Page ${pager.number}</span>
    <button type="button" disabled=${!pager.hasOlder} onClick=${pager.older}>Older →</button>
  </nav>`;
}
