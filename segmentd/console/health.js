// Journal, checkpoints, disk: is there room, and is it keeping up?

import { ApiError, get } from "./api.js";
import { bytes, count, duration, el, facts, time } from "./dom.js";

export async function healthView(main, context) {
  const cards = el("div", { class: "cards" });
  main.replaceChildren(el("h1", { text: "Health" }), cards);
  await context.every(3000, async () => {
    const [status, ready] = await Promise.all([get("/v3/status"), readiness()]);
    if (context.live) cards.replaceChildren(...drawn(status, ready).filter(Boolean));
  });
}

/** What /readyz says; also where it answers 503. */
async function readiness() {
  try { return await (await fetch("/readyz", { cache: "no-store" })).json(); }
  catch { throw new ApiError(0, "The server cannot be reached."); }
}

function drawn(status, ready) {
  const { store, limits, checkpoints, commits, disk } = status;
  const last = checkpoints.last;
  const followers = ready.followers;
  return [
    card("Service", status.not_ready ? "bad" : "good", status.not_ready ?? "Ready: recovered and accepting.", [
      ["Running for", duration(status.now - status.started_at)],
      ["Version", `${status.version}, Python ${status.python}`],
      ["Events change memberships", status.passthrough_enabled ? "yes" : "no ([passthrough] enabled = false)"],
    ]),
    card("Journal", store.journal_bytes > 0.8 * limits.journal_bytes_max ? "bad" : "good",
      "Every acknowledged event is here until the index has it.", [
        ["Held", meter("Journal", store.journal_bytes, limits.journal_bytes_max)],
        ["Records", count(store.journal_records)],
        ["Requests waiting for a commit", count(store.commits_waiting)],
        ["Last commit with its fsync", duration(commits.last_seconds)],
        ["Failed commits", count(commits.failures)],
      ]),
    card("Checkpoints", checkpoints.failures ? "bad" : "good", "Fold the journal into the index.", [
      ["Records not folded yet", count(store.unfolded_records)],
      ["Last one", last ? time(last.ended_at) : "none since the start"],
      ["It took", last ? `${duration(last.seconds)} for ${count(last.changes)} changes` : "–"],
      ["Failed", count(checkpoints.failures)],
    ]),
    disk ? card("Disk", disk.free_bytes < 0.1 * disk.total_bytes ? "bad" : "good", "The file system that the data is on.", [
      ["Used", meter("Disk", disk.total_bytes - disk.free_bytes, disk.total_bytes)],
      ["Free", bytes(disk.free_bytes)],
      ["Index", bytes(disk.index_bytes)],
      ["Journal", bytes(disk.journal_bytes)],
    ]) : card("Disk", "bad", "The data folder cannot be looked at.", []),
    card("Held in memory", "good", "What queries are answered from.", [
      ["Identifiers", count(store.identifiers)],
      ["Memberships", count(store.memberships)],
      ["Audiences", count(store.audiences)],
    ]),
    followers ? card("Followers", followers.ready < followers.wanted ? "bad" : "good", "Processes that answer queries beside this one.",
      [["Ready", count(followers.ready)], ["Wanted", count(followers.wanted)]]) : null,
  ];
}

function card(title, state, said, pairs) {
  return el("section", { class: `card ${state}` },
    el("h2", {}, title, " ", el("span", { class: `badge ${state === "good" ? "yes" : "no"}`, text: state === "good" ? "well" : "look here" })),
    el("p", { class: "note", text: said }), facts(pairs));
}

function meter(name, value, most) {
  return [el("meter", { min: 0, max: most, value, high: most * 0.8, "aria-label": name, title: `${bytes(value)} of ${bytes(most)}` }),
    el("span", { text: `${bytes(value)} of ${bytes(most)}` })];
}
