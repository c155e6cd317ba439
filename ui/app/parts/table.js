// Tables that turn into cards on a phone, and the two buttons that page through a list.
import { html } from "./html.js";

/**
 * `columns`: `{title, cell(row), className?, isHeading?}`. The heading's column names the row for screen readers.
 * `rowKey(row)` is unique. With `onSort(title)`, columns that have `by` are buttons, and `sorting` is `{title, isDown}`.
 */
export function Table({ caption, columns, rows, rowKey, sorting = null, onSort = null, rowClass = () => "", onRow = null }) {
  return html`<div class="table-box">
    <table>
      <caption class="unseen">${caption}</caption>
      <thead>
        <tr>${columns.map((one) => html`<${Heading} key=${one.title} column=${one} sorting=${sorting} onSort=${onSort} />`)}</tr>
      </thead>
      <tbody>
        ${rows.map(
          (row) => html`<tr key=${rowKey(row)} class=${rowClass(row)} onMouseEnter=${onRow && (() => onRow(row))}>
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

function Heading({ column: { title, className, by }, sorting, onSort }) {
  if (!onSort || !by) return html`<th scope="col" class=${className ?? ""}>${title}</th>`;
  const order = sorting?.title === title ? (sorting.isDown ? "descending" : "ascending") : undefined;
  return html`<th scope="col" class=${className ?? ""} aria-sort=${order}>
    <button type="button" class="sorter" onClick=${() => onSort(title)}>${title}<span aria-hidden="true">${{ ascending: " ↑", descending: " ↓" }[order] ?? ""}</span></button>
  </th>`;
}

/** `pager` of `usePages`. Draws nothing where one page is all. */
export function Pager({ pager, what = "entries" }) {
  if (!pager.hasNewer && !pager.hasOlder) return null;
  const [newer, older] = pager.words ?? ["← Newer", "Older →"];
  return html`<nav class="pager" aria-label=${`Pages of ${what}`}>
    <button type="button" disabled=${!pager.hasNewer} onClick=${pager.newer}>${newer}</button>
    <span>Page ${pager.number}</span>
    <button type="button" disabled=${!pager.hasOlder} onClick=${pager.older}>${older}</button>
  </nav>`;
}
