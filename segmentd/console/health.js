// Journal, checkpoints, disk, or the cluster: is there room, and is it keeping up?

import { ApiError, get } from "./api.js";
import { bytes, count, duration, el, facts, table, time } from "./dom.js";

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
  const { store, cluster } = status;
  const followers = ready.followers;
  return [
    card("Service", status.not_ready ? "bad" : "good", status.not_ready ?? "Ready: recovered and accepting.", [
      ["Running for", duration(status.now - status.started_at)],
      ["Version", `${status.version}, Python ${status.python}`],
      ["Events change memberships", status.passthrough_enabled ? "yes" : "no ([passthrough] enabled = false)"],
    ]),
    ...(cluster ? clusterCards(status) : journalCards(status)),
    diskCard(status),
    card(cluster ? "Held in the cluster" : "Held in memory", "good",
      cluster ? "What queries are answered from, as it was counted last." : "What queries are answered from.", [
        ["Identifiers", count(store.identifiers)],
        ["Memberships", count(store.memberships)],
        ["Audiences", count(store.audiences)],
      ]),
    followers ? card("Followers", followers.ready < followers.wanted ? "bad" : "good", "Processes that answer queries beside this one.",
      [["Ready", count(followers.ready)], ["Wanted", count(followers.wanted)]]) : null,
    cluster ? serversCard(cluster) : null,
  ];
}

function journalCards({ store, limits, checkpoints, commits }) {
  const last = checkpoints.last;
  return [
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
  ];
}

function clusterCards({ store, cluster, commits }) {
  const silent = cluster.servers.filter((server) => !server.answers).length;
  const retried = Object.entries(cluster.retries).filter(([, times]) => times);
  return [
    card("Cluster", cluster.partitions_away || silent || cluster.registry_age_seconds > 5 ? "bad" : "good", "Where memberships are; it shards, replicates and fails over.", [
      ["Servers that answer", `${count(cluster.servers.length - silent)} of ${count(cluster.servers.length)}`],
      ["Partitions without an owner", `${count(cluster.partitions_away)} of ${count(cluster.partitions)}`],
      ["Registry read", `${duration(cluster.registry_age_seconds)} ago`],
      ["Sent again", retried.length ? retried.map(([reason, times]) => `${reason} ${count(times)}`).join(", ") : "nothing since the start"],
    ]),
    card("Outbox", commits.failures ? "bad" : "good", "What this node sent lately, to give it back to new owners.", [
      ["Held", bytes(cluster.outbox_bytes)],
      ["Requests waiting to be sent", count(store.commits_waiting)],
      ["Last write to it", duration(commits.last_seconds)],
      ["Failed writes", count(commits.failures)],
      ["Given back", `${count(cluster.recovered_changes)} changes`],
      ["Last recovery", cluster.last_recovery_at ? time(cluster.last_recovery_at) : "none since the start"],
    ]),
  ];
}

function diskCard({ disk, cluster }) {
  if (!disk) return card("Disk", "bad", "The data folder cannot be looked at.", []);
  // A node of a cluster keeps its outbox and lists there, and nothing that anybody asks for.
  const stores = cluster ? [] : [["Index", bytes(disk.index_bytes)], ["Journal", bytes(disk.journal_bytes)]];
  return card("Disk", disk.free_bytes < 0.1 * disk.total_bytes ? "bad" : "good", "The file system that the data is on.", [
    ["Used", meter("Disk", disk.total_bytes - disk.free_bytes, disk.total_bytes)],
    ["Free", bytes(disk.free_bytes)],
    ...stores,
  ]);
}

function serversCard({ servers }) {
  const ofPrimary = (name) => (server) => (server.role === "primary" ? count(server[name]) : "–");
  return el("section", { class: "card wide" }, el("h2", { text: "Servers" }), table("Servers of the cluster", [
    { title: "Server", cell: (server) => server.address },
    { title: "Role", cell: (server) => server.role },
    { title: "Answers", cell: (server) => (server.answers ? "yes" : "no") },
    { title: "Partitions", kind: "number", cell: ofPrimary("partitions") },
    { title: "Replicas", kind: "number", cell: ofPrimary("replicas") },
  ], servers, "No server is known."));
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
