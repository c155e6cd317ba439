// The plots of a search: each trial's held-out loss as it learned, all its settings beside its value, and what mattered.
import { count, figure, percent, short } from "./format.js";
import { html, useMemo } from "./html.js";
import { Lines } from "./lines.js";
import { labelOf } from "./schema.js";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** Of a setting: numbers briefly, lists and the like as JSON. */
export const valueWords = (value) => (typeof value === "number" ? short(value) : typeof value === "string" ? value : JSON.stringify(value));

export function trialWords({ number, state, value, params }) {
  const settings = Object.entries(params).map(([name, one]) => `${name} ${valueWords(one)}`);
  return [`Trial ${number}, ${state}`, known(value) && `held-out loss ${figure(value)}`, ...settings].filter(Boolean).join(" · ");
}

/** The best first; those without a value last. */
export const byValue = (trials) => [...trials].sort((a, b) => (known(a.value) ? a.value : Infinity) - (known(b.value) ? b.value : Infinity) || a.number - b.number);

const toneOf = (best) => (one) => (one.number === best?.number ? "best" : one.state === "complete" ? "good" : one.state === "running" ? "plain" : "faint");

/** Where values lie between the least and the most, by their logarithm where they span more than a factor of 20. */
function scaleOf(values) {
  const numbers = values.filter(known);
  if (numbers.length < values.length) return listed(values);
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const isLog = low > 0 && high / low > 20;
  const of = isLog ? Math.log : (value) => value;
  return { at: (value) => (high === low ? 0.5 : (of(value) - of(low)) / (of(high) - of(low))), ends: [short(low), short(high)] };
}

function listed(values) {
  const words = [...new Set(values.map(valueWords))].sort();
  return { at: (value) => (words.length < 2 ? 0.5 : words.indexOf(valueWords(value)) / (words.length - 1)), ends: [words[0], words.at(-1)] };
}

export function Curves({ trials, best, at, onLook }) {
  const { lines, ends, last } = useMemo(() => {
    const drawn = byValue(trials).filter((one) => one.steps.length > 0);
    const points = drawn.flatMap((one) => one.steps);
    const losses = scaleOf(points.map(([, loss]) => loss));
    const most = points.reduce((so, [step]) => Math.max(so, step), 1);
    const tone = toneOf(best);
    const made = drawn.map((one) => ({ key: one.number, tone: tone(one), words: trialWords(one), points: one.steps.map(([step, loss]) => [step / most, losses.at(loss)]) }));
    return { lines: made, ends: losses.ends, last: most };
  }, [trials, best?.number]);
  if (!lines.length) return html`<p class="muted">No trial has been measured yet.</p>`;
  return html`<${Lines} title="Held-out loss of each trial" hint="over its steps; pruned trials are faint" lines=${lines} at=${at} onLook=${onLook}>
    ${({ width, height }) => html`
      <line class="axis" x1="40" x2="40" y1="24" y2=${24 + height} /><line class="axis" x1="40" x2=${40 + width} y1=${24 + height} y2=${24 + height} />
      <text x="36" y="28" text-anchor="end">${ends[1]}</text><text x="36" y=${28 + height} text-anchor="end">${ends[0]}</text>
      <text x=${40 + width} y=${44 + height} text-anchor="end">step ${count(last)}</text>`}
  <//>`;
}

export function Parallel({ trials, best, at, onLook }) {
  const { lines, axes } = useMemo(() => {
    const drawn = byValue(trials).filter((one) => known(one.value));
    const names = [...new Set(drawn.flatMap((one) => Object.keys(one.params)))].filter((name) => drawn.every((one) => name in one.params));
    const scales = [...names.map((name) => ({ name: labelOf(name), of: (one) => one.params[name] })), { name: "Held-out loss", of: (one) => one.value }];
    for (const one of scales) Object.assign(one, scaleOf(drawn.map(one.of)));
    const tone = toneOf(best);
    const last = Math.max(scales.length - 1, 1);
    return { axes: scales, lines: drawn.map((one) => ({ key: one.number, tone: tone(one), words: trialWords(one), points: scales.map((axis, i) => [i / last, axis.at(axis.of(one))]) })) };
  }, [trials, best?.number]);
  if (!lines.length) return null;
  const last = Math.max(axes.length - 1, 1);
  return html`<${Lines} title="Settings and what came of them" hint="each line is a trial, from setting to setting to its loss" lines=${lines} at=${at} onLook=${onLook} height=${300} least=${axes.length * 105} margin=${56}>
    ${({ height, place }) => axes.map((axis, i) => {
      const [x] = place([i / last, 0]);
      return html`<g key=${axis.name}><line class="axis" x1=${x} x2=${x} y1="24" y2=${24 + height} />
        <text x=${x} y="12" text-anchor="middle">${axis.ends[1]}</text><text x=${x} y=${38 + height} text-anchor="middle">${axis.ends[0]}</text>
        <text class="name" x=${x} y=${53 + height} text-anchor="middle">${axis.name}</text></g>`;
    })}
  <//>`;
}

/** How much of the differences each setting explains. */
export function Importances({ importances }) {
  const rows = Object.entries(importances).sort(([, a], [, b]) => b - a);
  if (!rows.length) return html`<p class="muted">It takes a few finished trials to tell which setting matters.</p>`;
  const most = rows[0][1] || 1;
  return html`<figure class="dotplot">
    <figcaption>What matters<span class="hint">the share of the differences in loss that each setting explains</span></figcaption>
    <ul>${rows.map(([name, share]) => html`<li key=${name} tabindex="0" title=${`${labelOf(name)}: ${percent(share, 1)}`}>
      <span class="break">${labelOf(name)}</span>
      <svg class="dots" aria-hidden="true" focusable="false"><rect x="0" y="6" width=${`${((share / most) * 100).toFixed(1)}%`} height="16" rx="3" /></svg>
      <span class="words-of">${percent(share, 1)}</span>
    </li>`)}</ul>
  </figure>`;
}
