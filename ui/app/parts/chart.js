// Curves by uPlot, which is loaded with the first of them. Colours are the style sheet's, in light and in dark.
import { day, figure, minute } from "./format.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";

const WHOLE = Array.from({ length: 8 }, (_, power) => [1, 2, 5].map((one) => one * 10 ** power)).flat(); // there is no half step

let library = null;
const loadLibrary = () => (library ??= import("../vendor/uplot.js").then((found) => found.default));

/**
 * `data`: `[xs, ys, ys, …]`, as uPlot takes it (null where there is no value). `series`: `{label, className, format?,
 * isSparse?, scale?}` for each `ys`; `className` is `series-1` to `series-3`, `isSparse` has its points joined and drawn.
 * `xLabel` names x, unless `isTime` (Unix seconds). A sentence says to who cannot see it what it shows.
 */
export function Chart({ title, data, series, xLabel = "step", isTime = false, isTitleShown = true, height = 240, min = null }) {
  const box = useRef(null);
  const plot = useRef(null);
  const [at, setAt] = useState(null);
  const [theme, setTheme] = useState(0);
  const shape = JSON.stringify([series.map((one) => [one.label, one.className, one.scale]), isTime, height, theme]);
  const latest = useRef(null);
  latest.current = { data, series };

  useEffect(() => {
    const changed = () => setTheme((before) => before + 1);
    const system = matchMedia("(prefers-color-scheme: dark)");
    addEventListener("themechange", changed);
    system.addEventListener("change", changed);
    return () => {
      removeEventListener("themechange", changed);
      system.removeEventListener("change", changed);
    };
  }, []);

  useLayoutEffect(() => {
    let isGone = false;
    let sizes = null;
    loadLibrary().then((UPlot) => {
      if (isGone) return;
      const options = optionsOf(box.current, latest.current.series, { isTime, height, min, onMove: setAt });
      plot.current = new UPlot(options, latest.current.data, box.current);
      sizes = new ResizeObserver(([{ contentRect }]) => plot.current?.setSize({ width: Math.floor(contentRect.width), height }));
      sizes.observe(box.current);
    });
    return () => {
      isGone = true;
      sizes?.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape]);

  useLayoutEffect(() => plot.current?.setData(data), [data]);

  const [xs] = data;
  const index = at !== null && at < xs.length ? at : null;
  const words = (one, ys) => (one.format ?? figure)(index === null ? lastOf(ys) : ys[index]);
  return html`<figure class="chart">
    <figcaption class=${isTitleShown ? "" : "unseen"}>${title}${index !== null && !isTime && html` <span class="muted small">${xLabel} ${xs[index]}</span>`}</figcaption>
    <div ref=${box} class="plot" role="img" aria-label=${spoken(title, data, series, xLabel, isTime)} style=${{ minHeight: `${height}px` }}></div>
    <ul class="legend" aria-hidden="true">
      ${series.map((one, i) => html`<li key=${one.label}><i class=${one.className}></i>${one.label} <strong>${words(one, data[i + 1])}</strong></li>`)}
    </ul>
  </figure>`;
}

function lastOf(values) {
  for (let i = values.length - 1; i >= 0; i -= 1) if (values[i] !== null && values[i] !== undefined) return values[i];
  return null;
}

function spoken(title, [xs, ...all], series, xLabel, isTime) {
  if (!xs.length) return `${title}: nothing yet.`;
  const until = isTime ? "" : ` up to ${xLabel} ${xs.at(-1)}`;
  const each = series.map((one, i) => {
    const known = all[i].filter((value) => value !== null && value !== undefined);
    const format = one.format ?? figure;
    return known.length ? `${one.label} from ${format(known[0])} to ${format(known.at(-1))}` : `${one.label}: nothing yet`;
  });
  return `${title}${until}: ${each.join("; ")}.`;
}

function optionsOf(element, series, { isTime, height, min, onMove }) {
  const style = getComputedStyle(element); // a live view
  const colour = (name) => {
    element.style.color = `var(--${name})`; // as a colour: the variable itself holds both, for light and for dark
    const found = style.color;
    element.style.color = "";
    return found;
  };
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 }, font: `12px ${style.fontFamily}` };
  const scales = { x: { time: isTime } };
  const sides = [...new Set(series.map((one) => one.scale ?? "y"))];
  for (const name of sides) scales[name] = { range: (plot, low, high) => padded(low, high, min) };
  const formatOf = (name) => series.find((one) => (one.scale ?? "y") === name).format;
  return {
    width: Math.max(element.clientWidth, 50),
    height,
    scales,
    legend: { show: false },
    cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false } },
    axes: [
      { ...axis, size: 34, ...(isTime ? { values: moments } : { incrs: WHOLE }) },
      ...sides.map((name, i) => ({ ...axis, scale: name, side: i ? 1 : 3, size: 58, grid: i ? { show: false } : axis.grid, ...(formatOf(name) ? { values: (plot, splits) => splits.map(formatOf(name)) } : {}) })),
    ],
    series: [
      {},
      ...series.map((one) => ({
        label: one.label,
        scale: one.scale ?? "y",
        stroke: colour(one.className),
        width: one.isSparse ? 2 : 1.5,
        spanGaps: true,
        points: { show: Boolean(one.isSparse), size: 6, fill: colour(one.className) },
      })),
    ],
    hooks: { setCursor: [(plot) => onMove(plot.cursor.idx ?? null)] },
  };
}

/** Days where the axis has more than two of them, else the time of day. */
function moments(plot, splits) {
  const isLong = plot.scales.x.max - plot.scales.x.min > 2 * 86_400;
  return splits.map((unix) => (isLong ? day(unix) : minute(unix)));
}

function padded(low, high, min) {
  if (low === null || high === null) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return [min === null ? low - room : Math.min(min, low), high + room];
}
