// One segment: what it is, its size over the day, its members.

import { ask, download, get, query } from "./api.js";
import { chart } from "./charts.js";
import { code, compact, count, el, facts, field, lastImport, options, problem, table, tell, time } from "./dom.js";
import { deleteForm, segmentForm } from "./segmentform.js";

const PAGE = 50;

export async function segmentView(main, context, id) {
  const { body, headers } = await ask("GET", `/v3/segments/${id}`);
  const revision = headers.get("etag").replaceAll('"', "");
  const audience = body.definition.external.external_audience_id;
  const again = () => segmentView(main, context, id).catch((error) => main.append(problem(error)));
  const head = el("div", { class: "tools" },
    el("button", { type: "button", text: "Edit", onclick: () => segmentForm({ present: { id, revision, body }, done: again }) }),
    el("a", { class: "button quiet", href: "#/imports", text: "Import a list" }),
    el("button", { type: "button", class: "quiet danger-text", text: "Delete",
      onclick: () => deleteForm({ id, revision, done: () => (location.hash = "#/segments") }) }));
  const size = el("span", { text: "–" });
  const event = el("span", { text: "–" });
  const list = el("span", { text: "–" });
  const history = el("div");
  const members = el("section", { "aria-labelledby": "members-title" });
  main.replaceChildren(
    el("p", { class: "crumb" }, el("a", { href: "#/segments", text: "Segments" })),
    el("div", { class: "title" }, el("h1", { text: id }), head),
    body.description ? el("p", { class: "lead", text: body.description }) : "",
    facts([
      ["Members", size], ["Last event", event], ["Last import", list], ["Audience", code(audience)], ["Revision", revision],
      ...Object.entries(body.metadata).map(([name, value]) => [name, value]),
    ]),
    history, members);
  await Promise.all([
    membersSection(members, id, audience, context.status.identifiers),
    context.every(5000, async () => {
      const [found, { sizes }, { audiences: [known] }] = await Promise.all([
        query("query Size($name: String!) { audience(name: $name) { size } }", { name: id }),
        get(`/v3/status/sizes?segments=${id}`),
        get(`/v3/audiences?first=1&segments=${id}`),
      ]);
      if (!found.audience) return;
      size.textContent = count(found.audience.size);
      event.replaceChildren(time(known?.last_event));
      list.replaceChildren(lastImport(known));
      const points = [...(sizes[id] ?? []), [Date.now() / 1000, found.audience.size]];
      history.replaceChildren(chart("Members over the last day", points.map(([at]) => at),
        [{ name: "members", values: points.map(([, value]) => value) }], (value) => (value === null ? "–" : compact(value))));
    }),
  ]);
}

async function membersSection(section, id, audience, identifiers) {
  const list = el("div", { class: "list" });
  const says = el("div");
  const which = options(el("select", { name: "identifier" }),
    [["", "all"], ...identifiers.filter((one) => one.confidence === "high").map((one) => [one.name, one.name])], "");
  const save = (form, name) => el("button", { type: "button", class: "quiet", text: name, onclick: async (event) => {
    const button = event.currentTarget;
    says.replaceChildren();
    button.disabled = true;
    tell("Preparing the file …");
    try {
      const only = which.value ? `&identifier=${which.value}` : "";
      await download(`/v3/segments/${id}/members?format=${form}&gzip=true${only}`, `${audience}.${form}.gz`);
      tell(`Saved ${audience}.${form}.gz.`);
    } catch (error) {
      says.replaceChildren(problem(error));
    } finally {
      button.disabled = false;
    }
  } });
  section.replaceChildren(
    el("h2", { id: "members-title", text: "Members" }),
    el("div", { class: "tools" }, field("Identifier in the file", which), save("csv", "Download CSV.gz"), save("ndjson", "Download NDJSON.gz")),
    says, list);
  const rows = [];
  const next = async (after) => {
    const page = await get(`/v3/segments/${id}/members?first=${PAGE}${after ? `&after=${encodeURIComponent(after)}` : ""}`);
    rows.push(...page.members);
    list.replaceChildren(
      table("Members", [
        { title: "Identifier", cell: (row) => row.identifier },
        { title: "Value", kind: "name", cell: (row) => code(row.value) },
        { title: "Qualified at", kind: "number", cell: (row) => time(row.qualified_at) },
        { title: "Source", cell: (row) => source(row.source) },
      ], rows, "Nobody is in it now."),
      el("p", { class: "note", role: "status", text: rows.length ? `${count(rows.length)} of ${count(page.total)}` : "" }),
      page.next ? el("button", { type: "button", class: "quiet", text: "Show more",
        onclick: () => next(page.next).catch((error) => says.replaceChildren(problem(error))) }) : "");
  };
  await next(null);
}

/** Where a decision came from; an import leads to its report. */
export function source(from) {
  if (!from.startsWith("import:")) return "event";
  const id = from.slice("import:".length);
  return el("a", { href: `#/imports/${encodeURIComponent(id)}`, text: "import", title: id });
}
