// State that a reload must not lose: kept in the tab's own storage, as JSON.
import { useCallback, useState } from "./html.js";

export function stored(key, initial) {
  try {
    const text = sessionStorage.getItem(key);
    return text === null ? initial : JSON.parse(text);
  } catch {
    return initial;
  }
}

export function store(key, value) {
  try {
    if (value === undefined || value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // full, or forbidden: the page works without
  }
}

/** Like `useState`, and there again after a reload. */
export function useStored(key, initial) {
  const [value, setValue] = useState(() => stored(key, initial));
  const change = useCallback(
    (next) =>
      setValue((before) => {
        const after = typeof next === "function" ? next(before) : next;
        store(key, after);
        return after;
      }),
    [key],
  );
  return [value, change];
}
