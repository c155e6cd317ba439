// Data of the API in a page: loaded, loaded again every few seconds while somebody looks, and paged.
import { get } from "../api.js";
import { useCallback, useEffect, useRef, useState } from "./html.js";
import { useStored } from "./stored.js";

/**
 * What `load(signal)` gives: `{data, error, isLoading, reload, setData}`. What is there stays on view while it is
 * loaded again, and when that fails. `everySeconds` loads it again while the page is seen.
 */
export function useLoaded(load, dependencies, { everySeconds = null } = {}) {
  const [state, setState] = useState({ data: null, error: null, isLoading: true });
  const [round, setRound] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  const reload = useCallback(() => setRound((before) => before + 1), []);
  const setData = useCallback((data) => setState((before) => ({ ...before, data: typeof data === "function" ? data(before.data) : data })), []);

  useEffect(() => setState((before) => ({ ...before, data: null, isLoading: true })), dependencies);

  useEffect(() => {
    const controller = new AbortController();
    let timer = null;
    let failures = 0;
    let hasRun = false;
    const again = () => {
      if (everySeconds === null || controller.signal.aborted) return;
      clearTimeout(timer);
      timer = setTimeout(run, everySeconds * 1000 * Math.min(2 ** failures, 8));
    };
    const run = async () => {
      if (document.hidden && hasRun) {
        document.addEventListener("visibilitychange", run, { once: true, signal: controller.signal });
        return;
      }
      hasRun = true;
      try {
        const data = await latest.current(controller.signal);
        failures = 0;
        if (!controller.signal.aborted) setState({ data, error: null, isLoading: false });
      } catch (error) {
        failures += 1;
        if (!controller.signal.aborted) setState((before) => ({ ...before, error, isLoading: false }));
      }
      again();
    };
    run();
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [...dependencies, round, everySeconds]);

  return { ...state, reload, setData };
}

/**
 * One page of a list at a time: what is shown stays small, however long the list. Where one is survives a reload.
 * Gives `{rows, error, isLoading, reload, pager}`; `pager` goes to `<Pager>`.
 */
export function usePages(path, query = {}, { limit = 25, everySeconds = null } = {}) {
  const name = `${path}?${new URLSearchParams(Object.entries(query).filter(([, value]) => value))}`;
  const [place, setPlace] = useStored("pages", { name, cursors: [] });
  const cursors = place.name === name ? place.cursors : [];
  const after = cursors.at(-1) ?? null;
  const loaded = useLoaded((signal) => get(path, { ...query, after, limit }, signal), [name, after, limit], { everySeconds });
  const move = (next) => setPlace({ name, cursors: next });
  // The row that the cursor named may have been deleted meanwhile.
  useEffect(() => {
    if (after && loaded.error?.status === 404) move([]);
  }, [loaded.error]);
  return {
    rows: loaded.data?.data ?? [],
    isEmpty: loaded.data !== null && loaded.data.data.length === 0 && cursors.length === 0,
    error: loaded.error,
    isLoading: loaded.data === null && loaded.isLoading,
    reload: loaded.reload,
    pager: {
      number: cursors.length + 1,
      hasNewer: cursors.length > 0,
      hasOlder: Boolean(loaded.data?.has_more),
      newer: () => move(cursors.slice(0, -1)),
      older: () => move([...cursors, loaded.data.last_id]),
    },
  };
}

/** All of a list that is known to be short, at most `most` rows. */
export async function all(path, query = {}, { most = 1000, signal } = {}) {
  const rows = [];
  let after = null;
  do {
    const page = await get(path, { ...query, after, limit: 100 }, signal);
    rows.push(...page.data);
    after = page.has_more ? page.last_id : null;
  } while (after !== null && rows.length < most);
  return rows;
}
