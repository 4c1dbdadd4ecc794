// One customer by any identifier: every membership, and what decided it.

import { ask } from "./api.js";
import { badge, code, count, el, field, options, problem, table, time } from "./dom.js";

export async function customersView(main, context) {
  const { identifiers } = context.status;
  const which = options(el("select", { name: "identifier" }), identifiers.map((one) => [one.name, one.name]), identifiers[0].name);
  const value = el("input", { name: "value", required: true, autocomplete: "off", spellcheck: "false", maxlength: 500 });
  const found = el("section", { "aria-live": "polite" });
  const button = el("button", { type: "submit", text: "Look up" });
  const look = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const { body } = await ask("POST", "/v3/customers/lookup", { body: { [which.value]: value.value } });
      if (context.live) found.replaceChildren(...customer(body));
    } catch (error) {
      found.replaceChildren(problem(error));
    } finally {
      button.disabled = false;
    }
  };
  main.replaceChildren(
    el("h1", { text: "Customers" }),
    el("form", { class: "tools", onsubmit: look }, field("Identifier", which), field("Value", value), button),
    found);
}

function customer(body) {
  const now = body.memberships.filter((one) => one.state === "qualified").length;
  const said = body.confidence === "low"
    ? `${body.identifier} has low confidence: events never change memberships by it.`
    : body.total ? `Member of ${count(now)} of ${count(body.total)} audiences that know this customer.`
      : "No event or import has ever decided about this customer.";
  return [
    el("h2", {}, `${body.identifier} `, code(body.value)),
    el("p", { class: "lead", text: said }),
    body.total ? table("Memberships", [
      { title: "Audience", kind: "name", cell: (row) => [code(row.audience_id),
        row.segment_ids.length ? el("span", { class: "under" }, row.segment_ids.map((id) => el("a", { class: "chip", href: `#/segments/${id}`, text: id })))
          : el("span", { class: "under", text: "no segment" })] },
      { title: "State", cell: (row) => row.state === "qualified" ? badge("yes", "qualified") : badge("no", "not qualified") },
      { title: "Qualified at", kind: "number", cell: (row) => time(row.qualified_at) },
      { title: "Updated at", kind: "number", cell: (row) => time(row.updated_at) },
      { title: "Why", cell: why },
    ], body.memberships, "") : "",
    body.memberships.length < body.total
      ? el("p", { class: "note", text: `The latest ${count(body.memberships.length)} of ${count(body.total)} are shown.` }) : "",
  ];
}

/** The latest decision, in words. */
function why(row) {
  if (row.source === "event") {
    return row.state === "qualified" ? "An event qualified them." : "An event disqualified them.";
  }
  const id = row.source.slice("import:".length);
  const link = el("a", { href: `#/imports/${encodeURIComponent(id)}`, text: "an import", title: id });
  return row.state === "qualified" ? el("span", {}, link, " lists them.") : el("span", {}, "Missing from the list of ", link, ".");
}
