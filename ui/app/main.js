// The frame around the pages: navigation, which page is shown, who is signed in, light or dark, and notices.
import { onSignInNeeded, session, signOut } from "./api.js";
import { attempt, Loading, Notices, Problem, say } from "./parts/feedback.js";
import { html, render, useEffect, useRef, useState } from "./parts/html.js";
import { Icon } from "./parts/icons.js";
import { SignIn } from "./parts/signin.js";
import { href, useRoute } from "./routes.js";

// A page is a module in `pages/` whose default export draws it; `parts` is what follows its name in the address.
const PAGES = [
  { name: "documents", title: "Documents" },
  { name: "train", title: "Train" },
  { name: "jobs", title: "Jobs" },
  { name: "adapters", title: "Adapters" },
  { name: "evaluations", title: "Evaluations" },
  { name: "sweeps", title: "Sweeps" },
  { name: "advice", title: "Advice" },
  { name: "playground", title: "Playground" },
  { name: "monitor", title: "Monitor" },
  { name: "keys", title: "Keys" },
];

const loaded = {};
let hasMoved = false; // since the pages were opened: then, and only then, the focus follows to the new heading
addEventListener("hashchange", () => (hasMoved = true));

function load(name) {
  loaded[name] ??= import(`./pages/${name}.js`).catch((error) => {
    delete loaded[name]; // the next try asks again
    throw error;
  });
  return loaded[name];
}

function App() {
  const { page, parts } = useRoute();
  const current = PAGES.find((one) => one.name === (page || PAGES[0].name));
  const [who, setWho] = useState(null);
  const [refusal, setRefusal] = useState(null);
  const look = () => session().then((found) => setWho(found), () => {});
  useEffect(() => {
    look();
    return onSignInNeeded((error) => setRefusal(error));
  }, []);
  useEffect(() => {
    document.title = current ? `${current.title} · finetuned` : "finetuned";
  }, [current]);
  const entered = () => {
    setRefusal(null);
    look();
    say("You are signed in.");
  };
  const leave = () => attempt(signOut).then((worked) => worked && location.reload());
  const body = refusal
    ? html`<${SignIn} reason=${refusal.detail} onDone=${entered} />`
    : html`<${Page} key=${current?.name} page=${current} parts=${parts} />`;
  return html`
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), document.getElementById("main").focus())}>Skip to the content</a>
    <${Bar} current=${current} who=${who} onLeave=${leave} />
    <main id="main" tabindex="-1">${body}</main>
    <${Notices} />
  `;
}

function Bar({ current, who, onLeave }) {
  const [isOpen, setOpen] = useState(false);
  useEffect(() => setOpen(false), [current]);
  return html`<header class="bar">
    <a class="brand" href=${href(PAGES[0].name)}><img src="icon.svg" alt="" width="24" height="24" />finetuned</a>
    <button type="button" class="plain menu" aria-expanded=${String(isOpen)} aria-controls="navigation" onClick=${() => setOpen(!isOpen)}>
      <${Icon} name="menu" /><span class="unseen">Menu</span>
    </button>
    <div id="navigation" class=${isOpen ? "open" : ""}>
      <nav aria-label="Pages">
        <ul>
          ${PAGES.map(
            (one) => html`<li key=${one.name}>
              <a href=${href(one.name)} aria-current=${one === current ? "page" : undefined} onClick=${() => setOpen(false)}>
                <${Icon} name=${one.name} />${one.title}
              </a>
            </li>`,
          )}
        </ul>
      </nav>
      <div class="bar-end">
        <${Theme} />
        ${who?.key_id && html`<button type="button" class="plain" onClick=${onLeave}>Sign out</button>`}
        <a class="quiet" href="../docs">API reference</a>
      </div>
    </div>
  </header>`;
}

function Theme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? system);
  const other = theme === "dark" ? "light" : "dark";
  const change = () => {
    document.documentElement.dataset.theme = other;
    localStorage.setItem("theme", other);
    setTheme(other);
    dispatchEvent(new Event("themechange"));
  };
  return html`<button type="button" class="plain" onClick=${change}><${Icon} name=${other} />${other === "dark" ? "Dark" : "Light"} colours</button>`;
}

function Page({ page, parts }) {
  const [module, setModule] = useState(null);
  const [error, setError] = useState(null);
  const main = useRef(null);
  useEffect(() => {
    if (!page) return;
    load(page.name).then((found) => setModule(() => found.default), () =>
      setError({ detail: "This page could not be loaded; reload it.", code: null }),
    );
  }, [page]);
  useEffect(() => {
    if (module && hasMoved) main.current?.querySelector("h1")?.focus();
  }, [module, parts.join("/")]);
  if (!page) return html`<h1>Not found</h1><p>There is no such page. <a href=${href(PAGES[0].name)}>Go to the documents.</a></p>`;
  if (error) return html`<${Problem} error=${error} />`;
  return html`<div ref=${main} class="page">${module ? html`<${module} parts=${parts} />` : html`<${Loading} what=${page.title.toLowerCase()} />`}</div>`;
}

document.getElementById("app").replaceChildren();
render(html`<${App} />`, document.getElementById("app"));
