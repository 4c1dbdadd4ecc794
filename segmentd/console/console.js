// The console: signing in, and which view is shown. Views are functions (main, context) that fill `main`; what they
// want to repeat they give to context.every, which ends with the view.

import { session, get } from "./api.js";
import { el, field, problem, tell } from "./dom.js";
import { audiencesView } from "./audiences.js";
import { customersView } from "./customers.js";
import { healthView } from "./health.js";
import { importView, importsView } from "./imports.js";
import { segmentView } from "./segment.js";
import { segmentsView } from "./segments.js";
import { trafficView } from "./traffic.js";

const VIEWS = [
  [/^segments$/, "Segments", segmentsView],
  [/^segments\/([a-z0-9_]+)$/, "Segments", segmentView],
  [/^audiences$/, "Audiences", audiencesView],
  [/^customers$/, "Customers", customersView],
  [/^imports$/, "Imports", importsView],
  [/^imports\/([\w.-]+)$/, "Imports", importView],
  [/^traffic$/, "Traffic", trafficView],
  [/^health$/, "Health", healthView],
];

const main = document.getElementById("main");
const bar = document.getElementById("bar");
let shown = null;

/** What a view may use; ended when another one is shown. */
function contextOf(status) {
  const timers = new Set();
  const failing = new Map();
  const standing = problem({ message: "" });
  return {
    status,
    live: true,
    /** What does not go well stands above the view until it does. error: null where it did. */
    trouble(work, error) {
      if (error) failing.set(work, error.message);
      else failing.delete(work);
      const said = [...new Set(failing.values())].join(" ");
      if (said === standing.textContent) return;
      standing.textContent = said;
      if (said) main.prepend(standing);
      else standing.remove();
    },
    /** Run work now and again; a failure is said until it goes well again. */
    every(milliseconds, work) {
      const run = async () => {
        if (!this.live) return;
        if (!document.hidden) {
          let problem = null;
          try { await work(); } catch (error) { problem = error; }
          if (this.live) this.trouble(work, problem);
        }
        if (this.live) timers.add(setTimeout(run, milliseconds));
      };
      return run();
    },
    end() { this.live = false; timers.forEach(clearTimeout); },
  };
}

async function show() {
  shown?.end();
  if (!session.open) return signIn();
  const path = location.hash.replace(/^#\/?/, "") || "segments";
  const found = VIEWS.map(([pattern, title, view]) => [pattern.exec(path), title, view]).find(([match]) => match);
  if (!found) { location.replace("#/segments"); return undefined; }
  const [match, title, view] = found;
  for (const link of bar.querySelectorAll("nav a")) {
    if (link.textContent === title) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${match[1] ?? title} · segmentd`;
  const context = (shown = contextOf(show.status));
  main.replaceChildren();
  try {
    await view(main, context, match[1]);
  } catch (error) {
    if (context.live) main.replaceChildren(el("h1", { text: title }), problem(error),
      el("button", { type: "button", class: "quiet", text: "Try again", onclick: show }));
  }
  return undefined;
}

function signIn(error) {
  bar.hidden = true;
  document.title = "Sign in · segmentd";
  document.getElementById("version").textContent = "";
  const key = el("input", { type: "password", name: "key", autocomplete: "off", spellcheck: "false", required: true, maxlength: 512 });
  const says = el("div", {}, error ? problem(error) : null);
  const button = el("button", { type: "submit", text: "Sign in" });
  const form = el("form", { class: "sign-in", onsubmit: async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      show.status = await session.begin(key.value);
      key.value = "";
      entered();
    } catch (failure) {
      says.replaceChildren(problem(failure));
      key.select();
      key.focus();
    } finally {
      button.disabled = false;
    }
  } },
    el("img", { src: "/console/mark.svg", alt: "", width: 44, height: 44 }),
    el("h1", { text: "segmentd" }),
    field("Private key", key, "Kept in this page until you leave or reload it; stored nowhere."),
    says, button);
  main.replaceChildren(form);
  key.focus();
}

function entered() {
  bar.hidden = false;
  document.getElementById("version").textContent = `segmentd ${show.status.version}`;
  watchState();
  show().then(() => main.focus());
}

/** The word beside the navigation: is it well? */
async function watchState() {
  const place = document.getElementById("state");
  clearTimeout(watchState.timer);
  if (!session.open) return;
  try {
    show.status = Object.assign(show.status ?? {}, await get("/v3/status"));
    place.className = show.status.not_ready ? "state bad" : "state good";
    place.textContent = show.status.not_ready ? "not ready" : "ready";
    place.title = show.status.not_ready ?? "";
  } catch (error) {
    place.className = "state bad";
    place.textContent = error.status === 0 ? "unreachable" : "trouble";
    place.title = error.message;
  }
  if (session.open) watchState.timer = setTimeout(watchState, 10_000);
}

function leave(error) {
  session.end();
  clearTimeout(watchState.timer);
  shown?.end();
  show.status = null;
  for (const dialog of document.querySelectorAll("dialog")) dialog.remove();
  signIn(error);
}

// The address names the view, so this link must not change it.
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
session.ended = () => leave(new Error("The key is no longer in force. Sign in with another one."));
document.getElementById("sign-out").addEventListener("click", () => { leave(); tell("Signed out."); });
addEventListener("hashchange", () => show().then(() => session.open && main.focus({ preventScroll: false })));
signIn();
