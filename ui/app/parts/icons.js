// The few signs of the navigation, drawn as strokes in the text's colour.
import { html } from "./html.js";

const PATHS = {
  documents: "M6 3h8l4 4v14H6zM14 3v4h4M9 12h6M9 16h6",
  train: "M4 17l5-6 4 4 7-9M15 6h5v5",
  jobs: "M4 6h16M4 12h16M4 18h10",
  adapters: "M12 3l9 5-9 5-9-5zM3 13l9 5 9-5",
  evaluations: "M4 20V10M10 20V4M16 20v-7M20 20H3",
  sweeps: "M4 7h9M17 7h3M15 5v4M4 12h3M11 12h9M9 10v4M4 17h11M19 17h1M17 15v4",
  advice: "M9 18h6M10 21h4M12 3a6 6 0 0 0-3.5 10.9V15h7v-1.1A6 6 0 0 0 12 3",
  playground: "M4 5h16v11H9l-5 4z",
  monitor: "M3 12h4l3-8 4 16 3-8h4",
  keys: "M14 10a4 4 0 1 0-3.5 4L12 16h2v2h2v2h4v-4l-6.2-6.2",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.5 1.5M17.5 17.5L19 19M19 5l-1.5 1.5M6.5 17.5L5 19",
  dark: "M20 14A8 8 0 1 1 10 4a7 7 0 0 0 10 10",
  menu: "M4 7h16M4 12h16M4 17h16",
};

export const Icon = ({ name }) =>
  html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${PATHS[name] ?? PATHS.jobs} /></svg>`;
