// Whole lists in: drop a file, watch it, read its report.

import { ask, get, upload } from "./api.js";
import { badge, code, count, el, facts, field, options, problem, table, tell, time } from "./dom.js";

const RUNNING = { queued: "wait", running: "wait", completed: "yes", failed: "no", cancelled: "no" };
/** Files of this page's uploads by the id of their job, so that one can be sent again. */
const sent = new Map();

export async function importsView(main, context) {
  const says = el("div");
  const jobs = el("div", { class: "list" });
  main.replaceChildren(
    el("h1", { text: "Imports" }),
    el("p", { class: "lead", text: "A list says: as of this time, exactly these are the members. Who is missing is disqualified; what happened later stays." }),
    form(context, says), says,
    el("h2", { text: "The latest imports" }), jobs);
  await context.every(2000, async () => {
    const { imports } = await get("/v3/imports?limit=20");
    jobs.replaceChildren(table("Imports", [
      { title: "Audience", kind: "name", cell: (row) => el("a", { href: `#/imports/${encodeURIComponent(row.id)}` }, code(row.audience_id)) },
      { title: "State", cell: state },
      { title: "As of", kind: "number", cell: (row) => time(row.as_of) },
      { title: "Rows", kind: "number", cell: (row) => count(row.rows) },
      { title: "In", kind: "number", cell: (row) => count(row.qualified) },
      { title: "Out", kind: "number", cell: (row) => count(row.disqualified) },
      { title: "Rejected", kind: "number", cell: (row) => count(row.rejected) },
      { title: "Began", kind: "number", cell: (row) => time(row.created_at) },
    ], imports, "No list was imported yet."));
  });
}

function state(job) {
  const dry = job.dry_run ? " (dry run)" : "";
  return badge(RUNNING[job.state] ?? "no", `${job.state}${dry}${job.state === "running" ? ` ${Math.round(job.progress * 100)} %` : ""}`);
}

function form(context, says) {
  const high = context.status.identifiers.filter((one) => one.confidence === "high");
  const file = el("input", { type: "file", id: "list-file", name: "file", required: true, accept: ".csv,.ndjson,.jsonl,.gz,text/csv" });
  const chosen = el("span", { class: "note", text: "CSV or NDJSON, also gzipped" });
  const audience = el("input", { name: "audience", required: true, spellcheck: "false", autocomplete: "off" });
  const identifier = options(el("select", { name: "identifier" }), [["", "as its header says"], ...high.map((one) => [one.name, one.name])], "");
  const asOf = el("input", { type: "datetime-local", name: "as-of", step: 1, autocomplete: "off" });
  const dry = el("input", { type: "checkbox", id: "dry", name: "dry" });
  const force = el("input", { type: "checkbox", id: "force", name: "force" });
  const take = () => {
    const [one] = file.files;
    if (!one) return;
    chosen.textContent = one.name;
    if (!audience.value) audience.value = one.name.replace(/\.gz$/i, "").replace(/\.(csv|ndjson|jsonl)$/i, "");
  };
  file.addEventListener("change", take);
  const zone = el("div", { class: "zone",
    ondragover: (event) => { event.preventDefault(); zone.classList.add("over"); },
    ondragleave: () => zone.classList.remove("over"),
    ondrop: (event) => { event.preventDefault(); zone.classList.remove("over"); file.files = event.dataTransfer.files; take(); } },
    el("label", { for: "list-file", text: "Drop a list here, or choose a file" }), file, chosen);
  asOf.title = "By the clock of this browser. Left empty it is the largest ts in the file, or now.";
  const submit = (event) => {
    event.preventDefault();
    const wish = { audience: audience.value, identifier: identifier.value, as_of: seconds(asOf.value), dry_run: dry.checked ? "true" : "", force: force.checked ? "true" : "" };
    send(says, file.files[0], wish);
  };
  return el("form", { class: "import", onsubmit: submit }, zone,
    el("div", { class: "tools" }, field("Audience", audience), field("Identifier", identifier),
      field("As of", asOf), el("label", { class: "check", for: "dry" }, dry, "Dry run"),
      el("label", { class: "check", for: "force" }, force, "Also if it shrinks much"),
      el("button", { type: "submit", text: "Import" })));
}

/** What a field of date and time says, as seconds since 1970; empty for nothing. */
function seconds(local) {
  return local ? String(new Date(local).getTime() / 1000) : "";
}

async function send(says, file, wish) {
  const { audience, ...rest } = wish;
  const fields = new URLSearchParams(Object.entries(rest).filter(([, value]) => value));
  const path = `/v3/audiences/${encodeURIComponent(audience)}/imports${fields.size ? `?${fields}` : ""}`;
  const bar = el("progress", { max: 1, value: 0, "aria-label": `Sending ${file.name}` });
  const sending = upload(path, file, mediaType(file.name), (share) => (bar.value = share));
  says.replaceChildren(el("p", { class: "sending" }, "Sending ", code(file.name), " ", bar, " ",
    el("button", { type: "button", class: "small quiet", text: "Stop", onclick: sending.stop })));
  try {
    const job = await sending.done;
    sent.set(job.id, { file, wish });
    says.replaceChildren();
    tell(`The list for ${audience} was taken.`);
    location.hash = `#/imports/${encodeURIComponent(job.id)}`;
  } catch (error) {
    says.replaceChildren(problem(error));
  }
}

function mediaType(name) {
  if (/\.gz$/i.test(name)) return "application/gzip";
  return /\.(ndjson|jsonl)$/i.test(name) ? "application/x-ndjson" : "text/csv";
}

export async function importView(main, context, id) {
  const report = el("div");
  const says = el("div");
  main.replaceChildren(
    el("p", { class: "crumb" }, el("a", { href: "#/imports", text: "Imports" })),
    el("h1", { text: "Import" }), says, report);
  let last = "";
  await context.every(700, async () => {
    const job = await get(`/v3/imports/${id}`);
    const now = JSON.stringify(job);
    if (now === last || !context.live) return;
    if (last && job.finished_at && !JSON.parse(last).finished_at) tell(`The import ${job.state === "failed" ? "failed" : `is ${job.state}`}.`);
    last = now;
    main.querySelector("h1").replaceChildren("Import into ", code(job.audience_id));
    report.replaceChildren(...drawn(job, says).filter(Boolean));
  });
}

function drawn(job, says) {
  const open = !job.finished_at;
  const again = sent.get(job.id);
  const guarded = job.state === "failed" && !job.force && /force/.test(job.reason ?? "");
  return [
    el("p", { class: "lead" }, state(job), job.phase ? ` ${job.phase}` : ""),
    open ? el("progress", { max: 1, value: job.progress, "aria-label": "Progress of the import" }) : null,
    job.reason ? el("p", { class: "problem", role: "alert", text: job.reason }) : null,
    el("div", { class: "tools" },
      open ? el("button", { type: "button", class: "quiet", text: "Cancel import", onclick: async () => {
        try { await ask("POST", `/v3/imports/${job.id}/cancel`); tell("Cancelled."); }
        catch (error) { says.replaceChildren(problem(error)); }
      } }) : null,
      guarded && again ? el("button", { type: "button", class: "danger", text: "Import it all the same",
        onclick: () => send(says, again.file, { ...again.wish, force: "true" }) }) : null,
      guarded && !again ? el("p", { class: "note", text: "If that is meant, import the file again with “Also if it shrinks much”." }) : null),
    facts([
      ["Rows", count(job.rows)], ["Distinct", count(job.distinct)], ["Qualified", count(job.qualified)],
      ["Disqualified", count(job.disqualified)], ["Unchanged", count(job.unchanged)], ["Rejected", count(job.rejected)],
      ["As of", time(job.as_of)], ["Identifier", job.identifier], ["Source", job.source],
      ["Allowed to shrink by", `${Math.round(job.max_shrink * 100)} %${job.force ? ", forced" : ""}`],
      ["Began", time(job.created_at)], ["Ended", time(job.finished_at)], ["Id", code(job.id)],
    ]),
    job.rejects.length ? el("section", {}, el("h2", { text: "Rejected rows" }), table("Rejected rows", [
      { title: "Line", kind: "number", cell: (row) => count(row.line) },
      { title: "Reason", cell: (row) => row.reason },
    ], job.rejects, "")) : null,
    job.rejects.length < job.rejected ? el("p", { class: "note", text: `The first ${count(job.rejects.length)} of ${count(job.rejected)} are listed.` }) : null,
  ];
}
