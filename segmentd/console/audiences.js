// Audiences that events and imports have named; those without a segment wait for one.

import { get } from "./api.js";
import { code, count, el, lastImport, problem, table, time } from "./dom.js";
import { segmentForm } from "./segmentform.js";

const PAGE = 50;

export async function audiencesView(main) {
  const all = el("input", { type: "checkbox", id: "all-audiences", name: "all" });
  const list = el("div", { class: "list" });
  main.replaceChildren(
    el("h1", { text: "Audiences" }),
    el("p", { class: "lead", text: "Memberships are kept for every audience, also before a segment names it: a segment that is created later is complete at once." }),
    el("div", { class: "tools" }, el("label", { class: "check", for: "all-audiences" }, all, "Also those that have a segment")),
    list);
  const load = async () => {
    const rows = [];
    const next = async (after) => {
      const page = await get(`/v3/audiences?first=${PAGE}${all.checked ? "" : "&without_segment=true"}${after ? `&after=${encodeURIComponent(after)}` : ""}`);
      rows.push(...page.audiences);
      draw(page);
    };
    const draw = (page) => list.replaceChildren(
      table("Audiences", [
        { title: "Audience", kind: "name", cell: (row) => code(row.audience_id) },
        { title: "Members", kind: "number", cell: (row) => count(row.size) },
        { title: "Last event", kind: "number", cell: (row) => time(row.last_event) },
        { title: "Last import", kind: "number", cell: lastImport },
        { title: "Segments", cell: (row) => row.segment_ids.length
          ? row.segment_ids.map((id) => el("a", { class: "chip", href: `#/segments/${id}`, text: id }))
          : el("button", { type: "button", class: "small",
            onclick: () => segmentForm({ audience: row.audience_id, done: (id) => (location.hash = `#/segments/${id}`) }) },
          "Create segment", el("span", { class: "unseen", text: ` for ${row.audience_id}` })) },
      ], rows, all.checked ? "No event or import has named an audience yet." : "Every audience has a segment."),
      el("p", { class: "note", role: "status", text: rows.length ? `${count(rows.length)} of ${count(page.total)}` : "" }),
      page.next ? el("button", { type: "button", class: "quiet", text: "Show more",
        onclick: () => next(page.next).catch((error) => list.append(problem(error))) }) : "");
    await next(null);
  };
  all.addEventListener("change", () => load().catch((error) => list.replaceChildren(problem(error))));
  await load();
}
