// Many lines in one drawing: a path for each tone however many lines there are, and one line that is looked at, by the
// mouse or by the arrow keys, whose words stand below.
import { html, useLayoutEffect, useMemo, useRef, useState } from "./html.js";

/**
 * `lines`: `{key, tone, points: [[x, y], …], words}` with x and y from 0 to 1, y upwards; in the order in which the
 * keys go through them. `tone` is a class: `best`, `good`, `plain`, `faint`. `at`: the key that is looked at, or null.
 * `children({width, height, place})` draws the axes; `place([x, y])` gives pixels. It is `least` pixels wide at least.
 */
export function Lines({ title, hint, lines, at, onLook, height = 260, least = 0, margin = 40, children }) {
  const box = useRef(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const sizes = new ResizeObserver(([{ contentRect }]) => setWidth(Math.max(Math.floor(contentRect.width), least)));
    sizes.observe(box.current);
    return () => sizes.disconnect();
  }, [least]);
  const inner = { width: Math.max(width - 2 * margin, 10), height: height - 56 };
  const place = ([x, y]) => [margin + x * inner.width, 24 + (1 - y) * inner.height];
  const paths = useMemo(() => pathsOf(lines, place), [lines, width]);
  const index = lines.findIndex((one) => one.key === at);
  const looked = lines[index] ?? null;

  const move = (event) => {
    const frame = event.currentTarget.getBoundingClientRect();
    const found = nearest(lines, place, event.clientX - frame.left, event.clientY - frame.top);
    if (found !== null && found !== at) onLook(found);
  };
  const press = (event) => {
    const next = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: lines.length - 1, PageDown: index + 10, PageUp: index - 10 }[event.key];
    if (event.key === "Escape") onLook(null);
    if (next === undefined) return;
    event.preventDefault();
    onLook(lines[Math.min(Math.max(next, 0), lines.length - 1)].key);
  };
  return html`<figure class="lines">
    <figcaption>${title}<span class="hint">${hint}</span></figcaption>
    <div ref=${box} class="lines-box" tabindex="0" role="slider" aria-label=${title} aria-valuemin="0" aria-valuemax=${lines.length} aria-valuenow=${index + 1}
      aria-valuetext=${looked?.words ?? `${lines.length} trials; the arrow keys go through them, the best first`} onKeyDown=${press}>
      ${width > 0 && html`<svg width=${width} height=${height} aria-hidden="true" focusable="false" onMouseMove=${move} onMouseLeave=${() => onLook(null)}>
        ${children({ ...inner, place })}
        ${[...paths].map(([tone, d]) => html`<path key=${tone} class=${`line ${tone}`} d=${d} />`)}
        ${looked && html`<path class="line looked" d=${pathOf(looked.points, place)} />${looked.points.map((one) => {
          const [x, y] = place(one);
          return html`<circle class="looked" cx=${x} cy=${y} r="3.5" />`;
        })}`}
      </svg>`}
    </div>
    <p class="looked-words">${looked?.words ?? html`<span class="muted">Point at a line, or go through them with the arrow keys.</span>`}</p>
  </figure>`;
}

const TONES = ["faint", "plain", "good", "best"]; // the last lies on top

function pathsOf(lines, place) {
  const found = new Map();
  for (const tone of TONES) {
    const own = lines.filter((one) => one.tone === tone);
    if (own.length) found.set(tone, own.map((one) => pathOf(one.points, place)).join(""));
  }
  return found;
}

function pathOf(points, place) {
  const words = points.map((one, i) => `${i ? "L" : "M"}${place(one).map((value) => value.toFixed(1)).join(" ")}`);
  return points.length === 1 ? `${words[0]}h0.1` : words.join("");
}

const NEAR = 24; // pixels

function nearest(lines, place, x, y) {
  let [best, least] = [null, NEAR];
  for (const { key, points } of lines) {
    for (let i = 0; i < points.length; i += 1) {
      const apart = distance(x, y, place(points[i]), place(points[i + 1] ?? points[i]));
      if (apart < least) [best, least] = [key, apart];
    }
  }
  return best;
}

/** From a point to a piece of a line. */
function distance(x, y, [ax, ay], [bx, by]) {
  const long = (bx - ax) ** 2 + (by - ay) ** 2;
  const share = long ? Math.min(Math.max(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / long, 0), 1) : 0;
  return Math.hypot(x - ax - share * (bx - ax), y - ay - share * (by - ay));
}
