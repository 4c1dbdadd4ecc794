// The dialogs that create, change and delete a segment.

import { ask } from "./api.js";
import { el, field, problem, tell } from "./dom.js";

/** A dialog that is open; it leaves the page when it is closed, and focus goes back to where it was. */
function dialog(title, ...children) {
  const before = document.activeElement;
  const heading = el("h2", { text: title, id: "dialog-title" });
  const shown = el("dialog", { "aria-labelledby": "dialog-title", onclose: () => { shown.remove(); before?.focus?.(); } },
    heading, ...children);
  document.body.append(shown);
  shown.showModal();
  return shown;
}

/** As an id: what an audience's id may suggest. */
export const suggestedId = (audience) => audience.toLowerCase().replace(/[^a-z0-9_]+/g, "_").replace(/^_+|_+$/g, "").slice(0, 128);

/** Create a segment, or change `present` ({id, revision, body}). done: called with the id. */
export function segmentForm({ present = null, audience = "", done }) {
  const written = present?.body;
  const id = el("input", { name: "id", value: present?.id ?? suggestedId(audience), required: true, maxlength: 128,
    pattern: "[A-Za-z0-9_]+", readonly: Boolean(present), spellcheck: "false", autocomplete: "off" });
  const audienceId = el("input", { name: "audience", required: true, spellcheck: "false", autocomplete: "off",
    value: written?.definition.external.external_audience_id ?? audience });
  const description = el("textarea", { name: "description", rows: 2, maxlength: 4096 });
  description.value = written?.description ?? "";
  const metadata = el("textarea", { name: "metadata", rows: 3, spellcheck: "false" });
  metadata.value = Object.entries(written?.metadata ?? {}).map(([name, value]) => `${name} = ${value}`).join("\n");
  const says = el("div");
  const save = el("button", { type: "submit", text: present ? "Save" : "Create segment" });

  const submit = async (event) => {
    event.preventDefault();
    save.disabled = true;
    try {
      const segmentId = id.value.toLowerCase();
      const { body } = await ask("PUT", `/v3/segments/${encodeURIComponent(segmentId)}`, {
        headers: present ? { "if-match": `"${present.revision}"` } : { "if-none-match": "*" },
        body: {
          description: description.value,
          metadata: readMetadata(metadata.value),
          definition: { external: { external_audience_id: audienceId.value } },
        },
      });
      shown.close();
      tell(present ? `Saved ${segmentId}, revision ${body.revision}.` : `Created ${segmentId}.`);
      done(segmentId);
    } catch (error) {
      says.replaceChildren(problem(error.status === 412 ? conflict(present, error) : error));
    } finally {
      save.disabled = false;
    }
  };

  const shown = dialog(present ? `Edit ${present.id}` : "New segment",
    el("form", { onsubmit: submit },
      field("Segment id", id, present ? "An id stays." : "Letters, digits and underscores; the name that GraphQL shows."),
      field("External audience id", audienceId, "The audience_id of events and imports."),
      field("Description", description),
      field("Metadata", metadata, "One “name = value” a line."),
      says,
      el("div", { class: "actions" }, save, el("button", { type: "button", class: "quiet", text: "Cancel", onclick: () => shown.close() }))));
  (present ? description : audience ? description : id).focus();
}

/** Ask, then delete. */
export function deleteForm({ id, revision, done }) {
  const says = el("div");
  const yes = el("button", { type: "button", class: "danger", text: "Delete segment", onclick: async () => {
    yes.disabled = true;
    try {
      await ask("DELETE", `/v3/segments/${encodeURIComponent(id)}`, { headers: { "if-match": `"${revision}"` } });
      shown.close();
      tell(`Deleted ${id}.`);
      done();
    } catch (error) {
      says.replaceChildren(problem(error.status === 412 ? conflict({ revision }, error) : error));
      yes.disabled = false;
    }
  } });
  const shown = dialog(`Delete ${id}?`,
    el("p", { text: "Queries no longer show the segment. The members of its audience stay, so creating it again brings them back." }),
    says,
    el("div", { class: "actions" }, yes, el("button", { type: "button", class: "quiet", text: "Keep it", onclick: () => shown.close() })));
}

function conflict(present, error) {
  return new Error(present
    ? `Somebody changed it since you opened revision ${present.revision}: close this and look again. ${error.message}`
    : `There is a segment of this id already. ${error.message}`);
}

function readMetadata(text) {
  const found = {};
  for (const line of text.split("\n").filter((one) => one.trim())) {
    const at = line.indexOf("=");
    if (at < 1) throw new Error(`Metadata needs “name = value” on each line; got “${line.trim().slice(0, 40)}”.`);
    found[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return found;
}
