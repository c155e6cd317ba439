// Numbers, sizes and times as people read them.
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const brief = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const dayAlone = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const minuteAlone = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [["day", 86_400], ["hour", 3_600], ["minute", 60]];

export const DASH = "–";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (value) => (isNumber(value) ? number.format(value) : DASH);

/** `1 document`, `3 documents`. */
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

export const percent = (share, digits = 0) => (isNumber(share) ? `${(share * 100).toFixed(digits)} %` : DASH);

/** A loss or another small number, to so many digits that differences show. */
export const figure = (value, digits = 3) => (isNumber(value) ? (Math.abs(value) >= 0.001 || value === 0 ? value.toFixed(digits) : value.toExponential(1)) : DASH);

export function bytes(value) {
  if (!isNumber(value)) return DASH;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (value >= 999.5 && power < units.length - 1) {
    value /= 1000;
    power += 1;
  }
  return `${power && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

/** `1 h 05 min`, `2 min 10 s`, `4.2 s`, `120 ms`. */
export function duration(seconds) {
  if (!isNumber(seconds)) return DASH;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10 && !Number.isInteger(seconds)) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (value) => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/** Between two moments that are known to the second. */
export function between(from, to = Date.now() / 1000) {
  if (!isNumber(from)) return DASH;
  const seconds = Math.max(0, Math.round(to - from));
  return seconds < 1 ? "under 1 s" : duration(seconds);
}

/** A number of any size in few characters: `0`, `2e-4`, `0.25`, `1,250`. */
export function short(value) {
  if (!isNumber(value)) return DASH;
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1).replace(".0e", "e");
  return brief.format(value);
}

export const time = (unix) => (isNumber(unix) ? moment.format(unix * 1000) : DASH);
export const timeOfDay = (unix) => (isNumber(unix) ? clock.format(unix * 1000) : DASH);

/** For axes of time. */
export const day = (unix) => dayAlone.format(unix * 1000);
export const minute = (unix) => minuteAlone.format(unix * 1000);

export function ago(unix, now = Date.now() / 1000) {
  if (!isNumber(unix)) return DASH;
  const past = now - unix;
  for (const [unit, seconds] of UNITS) if (past >= seconds) return relative.format(-Math.floor(past / seconds), unit);
  return "just now";
}
