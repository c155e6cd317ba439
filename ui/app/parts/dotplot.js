// Figures with their intervals on one scale: a dot and a bar a row, its words beside it, so that nothing is in the drawing alone.
import { isKnown } from "./metrics.js";
import { html } from "./html.js";

const ROOM = 0.06; // of the scale, at both ends

/**
 * `rows`: `{label, value, low, high, beside, isBaseline?}`, `beside` in words. `format(value)` writes values. The
 * baseline's value is drawn through all rows.
 */
export function DotPlot({ title, hint = null, rows, format }) {
  const [from, to] = scaleOf(rows);
  const at = (value) => `${(((value - from) / (to - from)) * 100).toFixed(2)}%`;
  const baseline = rows.find((one) => one.isBaseline);
  return html`<figure class="dotplot">
    <figcaption>${title}${hint && html`<span class="hint">${hint}</span>`}</figcaption>
    <ul>
      ${rows.map(
        (one) => html`<li key=${one.label} class=${one.isBaseline ? "baseline" : ""}>
          <span class="break">${one.label}</span>
          <svg class="dots" aria-hidden="true" focusable="false">
            <line class="track" x1="0" x2="100%" y1="14" y2="14" />
            ${baseline && html`<line class="beside" x1=${at(baseline.value)} x2=${at(baseline.value)} y1="0" y2="28" />`}
            ${isKnown(one.low) && isKnown(one.high) && html`<line class="interval" x1=${at(one.low)} x2=${at(one.high)} y1="14" y2="14" />`}
            <circle cx=${at(one.value)} cy="14" r="5" />
          </svg>
          <span class="words-of"><strong>${format(one.value)}</strong>${one.beside}</span>
        </li>`,
      )}
      <li class="scale" aria-hidden="true"><span></span><span><span>${format(from)}</span><span>${format(to)}</span></span><span></span></li>
    </ul>
  </figure>`;
}

function scaleOf(rows) {
  const all = rows.flatMap((one) => [one.value, one.low, one.high]).filter(isKnown);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const room = (high - low || Math.abs(high) || 1) * ROOM;
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
}
