// Uploads of this tab: a few at a time, each with its progress or its error; they go on while other pages are shown.
import { upload } from "../api.js";
import { useEffect, useState } from "./html.js";

const AT_ONCE = 3;
const bus = new EventTarget();
let entries = [];
let lastId = 0;
let running = 0;

const changed = () => bus.dispatchEvent(new Event("changed"));

function change(id, values) {
  entries = entries.map((one) => (one.id === id ? { ...one, ...values } : one));
  changed();
}

/** Uploads files, one request each: the error of one disturbs no other. `purpose`: null, or "questions". */
export function add(files, purpose = null) {
  entries = [...entries, ...files.map((file) => ({ id: ++lastId, file, purpose, name: file.name, size: file.size, state: "waiting", share: 0, error: null }))];
  changed();
  while (running < AT_ONCE && entries.some((one) => one.state === "waiting")) work();
}

async function work() {
  running += 1;
  for (let next; (next = entries.find((one) => one.state === "waiting")); ) await send(next);
  running -= 1;
}

async function send({ id, file, purpose }) {
  change(id, { state: "sending" });
  try {
    const { data } = await upload("/documents", file, { texts: { purpose }, onProgress: (share) => change(id, { share }) });
    change(id, { state: data[0].is_new ? "done" : "known", share: 1, file: null });
    bus.dispatchEvent(new Event("arrived"));
  } catch (error) {
    change(id, { state: "failed", error, file: error.status === 0 || error.status >= 500 ? file : null });
  }
}

/** Sends what failed, and may do better, again. */
export function retry(id) {
  change(id, { state: "waiting", share: 0, error: null });
  if (running < AT_ONCE) work();
}

/** Forgets those that have ended. */
export function clear() {
  entries = entries.filter((one) => one.state === "waiting" || one.state === "sending");
  changed();
}

/** The uploads; `onArrived` is called when a document has come. */
export function useUploads(onArrived) {
  const [shown, setShown] = useState(entries);
  useEffect(() => {
    const draw = () => setShown(entries);
    bus.addEventListener("changed", draw);
    bus.addEventListener("arrived", onArrived);
    draw();
    return () => {
      bus.removeEventListener("changed", draw);
      bus.removeEventListener("arrived", onArrived);
    };
  }, [onArrived]);
  return shown;
}

addEventListener("beforeunload", (event) => {
  if (entries.some((one) => one.state === "waiting" || one.state === "sending")) event.preventDefault();
});
