// What pages are written with: htm's `html` and Preact's hooks, from one place.
export {
  html,
  render,
  createContext,
  useCallback,
  useContext,
  useEffect,
  useLayoutEffect,
  useMemo,
  useReducer,
  useRef,
  useState,
} from "../vendor/htm-preact.js";

let last = 0;

/** An id that nothing else on the page has. */
export const newId = (prefix = "id") => `${prefix}-${++last}`;
