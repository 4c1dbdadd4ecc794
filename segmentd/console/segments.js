// All segments: name, description, size, the last day.

import { get, query } from "./api.js";
import { sparkline } from "./charts.js";
import { compact, code, count, duration, el, field, rate, table, tell, time } from "./dom.js";
import { segmentForm } from "./segmentform.js";

const PAGE = 25;
const LIST = `query Segments($first: Int, $after: String, $filter: AudienceFilter) {
  audiences(first: $first, after: $after, filter: $filter) {
    totalCount pageInfo { hasNextPage endCursor }
    edges { node { name description revision size external_audience_id } }
  }
}`;

export async function segmentsView(main, context) {
  const strip = el("dl", { class: "strip", "aria-label": "Right now" });
  const search = el("input", { type: "search", name: "search", autocomplete: "off", spellcheck: "false", maxlength: 128 });
  const list = el("div", { class: "list" });
  const create = el("button", { type: "button", text: "New segment",
    onclick: () => segmentForm({ done: (id) => (location.hash = `#/segments/${id}`) }) });
  main.replaceChildren(
    el("h1", { text: "Segments" }), strip,
    el("div", { class: "tools" }, field("Find by name", search), create),
    list);

  let turn = 0;
  const load = async () => {
    const mine = ++turn;
    const rows = [];
    let after = null, total = 0, more = true;
    const next = async () => {
      const filter = search.value.trim() ? { name_contains: search.value.trim() } : null;
      const { audiences } = await query(LIST, { first: PAGE, after, filter });
      const nodes = audiences.edges.map((edge) => edge.node);
      const names = nodes.map((node) => node.name).join(",");
      const [{ sizes }, { audiences: known }] = nodes.length
        ? await Promise.all([get(`/v3/status/sizes?segments=${names}`), get(`/v3/audiences?first=${PAGE}&segments=${names}`)])
        : [{ sizes: {} }, { audiences: [] }];
      if (mine !== turn || !context.live) return;
      const now = Date.now() / 1000;
      const asOf = Object.fromEntries(known.map((audience) => [audience.audience_id, Math.max(audience.last_event, audience.last_import_as_of) || null]));
      rows.push(...nodes.map((node) => ({ ...node, as_of: asOf[node.external_audience_id], history: [...(sizes[node.name] ?? []), [now, node.size]] })));
      ({ hasNextPage: more, endCursor: after } = audiences.pageInfo);
      total = audiences.totalCount;
      draw(list, rows, total, more ? next : null, Boolean(filter));
    };
    await next();
  };
  let typing;
  search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => load().catch((error) => tell(error.message)), 200); });
  /** Sizes move; but nothing is drawn anew under whoever is reading on or stands in the list. */
  const refresh = async () => {
    if (list.querySelectorAll("tbody tr").length <= PAGE && !list.contains(document.activeElement)) await load();
  };
  await Promise.all([context.every(10_000, refresh), context.every(4000, () => figures(strip))]);
}

function draw(list, rows, total, next, searched) {
  list.replaceChildren(
    table("Segments", [
      { title: "Segment", kind: "name", cell: (row) => [
        el("a", { href: `#/segments/${row.name}`, text: row.name }),
        row.description ? el("span", { class: "under", text: row.description }) : null] },
      { title: "Audience", cell: (row) => code(row.external_audience_id) },
      { title: "Members", kind: "number", cell: (row) => count(row.size) },
      { title: "Last day", kind: "line-cell", cell: (row) => sparkline(row.history, `Size of ${row.name}`) },
      { title: "Known as of", kind: "number", cell: (row) => time(row.as_of) },
      { title: "Revision", kind: "number", cell: (row) => String(row.revision) },
    ], rows, searched ? "No segment has that in its name." : "There is no segment yet. Create one, or look at the audiences that events and imports have named."),
    el("p", { class: "note", role: "status", text: rows.length ? `${count(rows.length)} of ${count(total)}` : "" }),
    next ? el("button", { type: "button", class: "quiet", text: "Show more",
      onclick: () => next().catch((error) => tell(error.message)) }) : "");
}

async function figures(strip) {
  const [status, traffic] = await Promise.all([get("/v3/status"), get(`/v3/status/traffic?since=${Date.now() / 1000 - 60}`)]);
  const last = traffic.points.at(-1);
  const events = last ? Object.values(last.events_per_second).reduce((sum, one) => sum + one, 0) : null;
  const shown = [
    ["Identifiers", compact(status.store.identifiers), count(status.store.identifiers)],
    ["Memberships", compact(status.store.memberships), count(status.store.memberships)],
    ["Audiences", compact(status.store.audiences), count(status.store.audiences)],
    ["Events a second", events === null ? "–" : rate(events)],
    ["Queries a second", last ? rate(last.queries_per_second) : "–"],
    ["Query p95", last ? duration(last.query_seconds[1]) : "–"],
  ];
  strip.replaceChildren(...shown.map(([term, value, exact]) =>
    el("div", {}, el("dt", { text: term }), el("dd", { text: value, title: exact }))));
}
