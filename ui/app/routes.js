// The address bar: `#/page/part?name=value` says what is shown, so that everything can be linked to and reloaded.
import { useEffect, useState } from "./parts/html.js";

/** `{page, parts, query}` of the address as it is now. */
export function route() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page = "", ...parts] = path.split("/").filter(Boolean).map(decoded);
  return { page, parts, query: Object.fromEntries(new URLSearchParams(search)) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a `%` that somebody typed
  }
}

/** The link to a page: `href("jobs", id)`, `href("jobs", {status: "failed"})`. Empty values are left out. */
export function href(...parts) {
  const query = typeof parts.at(-1) === "object" ? parts.pop() : {};
  const kept = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = new URLSearchParams(kept).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

/** Goes to `link`; with `replace`, "back" does not lead here again. */
export function go(link, { replace = false } = {}) {
  if (!replace) {
    location.hash = link;
    return;
  }
  history.replaceState(null, "", link);
  dispatchEvent(new HashChangeEvent("hashchange"));
}

/** The route, drawn anew whenever it changes. */
export function useRoute() {
  const [current, setCurrent] = useState(route);
  useEffect(() => {
    const changed = () => setCurrent(route());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return current;
}

/** One value of the address's query, and how to change it: `const [status, setStatus] = useQuery("status")`. */
export function useQuery(name, initial = "") {
  const { page, parts, query } = useRoute();
  const change = (value) => {
    const now = route();
    go(href(now.page || page, ...now.parts, { ...now.query, [name]: value === initial ? "" : value }), { replace: true });
  };
  return [query[name] ?? initial, change, parts];
}
