// Events by outcome and query latency, live.

import { get } from "./api.js";
import { chart } from "./charts.js";
import { duration, el, rate } from "./dom.js";

export async function trafficView(main, context) {
  const charts = el("div", { class: "charts" });
  const note = el("p", { class: "note" });
  main.replaceChildren(el("h1", { text: "Traffic" }), charts, note);
  let points = [];
  await context.every(2000, async () => {
    const traffic = await get(`/v3/status/traffic?since=${points.at(-1)?.at ?? 0}`);
    points = [...points, ...traffic.points].slice(-traffic.points_max);
    const times = points.map((point) => point.at);
    const perSecond = (value) => (value === null ? "–" : `${rate(value)}/s`);
    charts.replaceChildren(
      chart("Events a second, by outcome", times, traffic.outcomes.map((name) =>
        ({ name, values: points.map((point) => point.events_per_second[name]) })), perSecond),
      chart("Queries a second", times, [{ name: "queries", values: points.map((point) => point.queries_per_second) }], perSecond),
      chart("Query latency", times, traffic.quantiles.map((share, at) =>
        ({ name: `p${Math.round(share * 100)}`, values: points.map((point) => point.query_seconds[at]) })), duration));
    note.textContent = `A sample every ${traffic.seconds} s, the last ${duration(traffic.seconds * traffic.points_max)} since the server started. Latency is from the whole request to its answer.`;
  });
}
