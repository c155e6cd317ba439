// Columns by metrics: each figure with its interval and its number of examples, as a table and as dots on one scale.
import { DotPlot } from "./dotplot.js";
import { count, DASH, short } from "./format.js";
import { html } from "./html.js";
import { CORPUS, METRICS, metricOf, range, SOURCES } from "./metrics.js";
import { Table } from "./table.js";
import { useQuery } from "../routes.js";

export function Figures({ report }) {
  const sources = Object.keys(SOURCES).filter((name) => report.columns.some((one) => one.source === name));
  const [chosen, setChosen] = useQuery("source");
  const source = sources.includes(chosen) ? chosen : sources[0];
  const columns = report.columns.filter((one) => one.source === source);
  if (!columns.length) return html`<p class="muted">Nothing was measured.</p>`;
  const names = orderedMetrics(columns);
  const main = names.filter((name) => metricOf(name).isMain);
  const others = names.filter((name) => !metricOf(name).isMain);
  const plots = (some) => html`<div class="columns">${some.map((name) => html`<section key=${name} class="card"><${Plot} name=${name} columns=${columns} baseline=${report.baseline} /></section>`)}</div>`;
  return html`<section class="stack" aria-labelledby="figures-title">
    <h2 id="figures-title">Every figure</h2>
    <${Sources} names=${sources} chosen=${source} onChoose=${setChosen} />
    <${Table} caption=${`Figures on: ${SOURCES[source]}`} rows=${rowsOf(names, columns)} rowKey=${(row) => row.name} columns=${tableColumns(columns)} />
    <p class="hint">Under each figure where it lies with 95 % confidence, and the number of examples.</p>
    ${plots(main)}
    ${others.length > 0 && html`<details><summary>Length, speed and the rest as plots</summary>${plots(others)}</details>`}
  </section>`;
}

/** Which examples: tabs, where there are several kinds. */
export function Sources({ names, chosen, onChoose }) {
  if (names.length < 2) return null;
  return html`<div class="tabs" role="group" aria-label="Which examples">
    ${names.map((name) => html`<button key=${name} type="button" aria-pressed=${String(name === chosen)} onClick=${() => onChoose(name)}>${SOURCES[name]}</button>`)}
  </div>`;
}

function orderedMetrics(columns) {
  const found = new Set(columns.flatMap((one) => Object.keys(one.figures)));
  return [...Object.keys(METRICS).filter((name) => found.delete(name)), ...found];
}

function rowsOf(names, columns) {
  const corpus = [...new Set(columns.flatMap((one) => Object.keys(one.corpus)))];
  const failed = columns.some((one) => one.num_failed > 0) ? [{ name: "failed", title: "Failed answers", cell: (one) => count(one.num_failed) }] : [];
  return [
    ...names.map((name) => ({ name, title: metricOf(name).name, hint: metricOf(name).hint, cell: (one) => html`<${Cell} interval=${one.figures[name]} format=${metricOf(name).format} />` })),
    ...corpus.map((name) => ({ name, title: CORPUS[name] ?? metricOf(name).name, cell: (one) => (name in one.corpus ? short(one.corpus[name]) : DASH) })),
    ...failed,
  ];
}

const tableColumns = (columns) => [
  { title: "Measure", isHeading: true, cell: (row) => html`${row.title}${row.hint && html`<span class="hint">${row.hint}</span>`}` },
  ...columns.map((one) => ({ title: one.label, className: "numeric", cell: (row) => row.cell(one) })),
];

function Cell({ interval, format }) {
  if (!interval) return html`<span class="muted">${DASH}</span>`;
  return html`<div><strong>${format(interval.value)}</strong><div class="muted small">${range(interval, format) ?? "no interval"} · n ${count(interval.num_examples)}</div></div>`;
}

function Plot({ name, columns, baseline }) {
  const { name: title, hint, format } = metricOf(name);
  const rows = columns
    .filter((one) => one.figures[name])
    .map(({ label, figures: { [name]: found } }) => ({ ...found, label, isBaseline: label === baseline, beside: range(found, format) }));
  return html`<${DotPlot} title=${title} hint=${hint} rows=${rows} format=${format} />`;
}
