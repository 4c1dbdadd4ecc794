// Charts as SVG, drawn by DOM. Colour never carries a meaning alone: lines differ in their dashes, and the legend says
// the numbers.

import { el, svg } from "./dom.js";

const WIDTH = 720;
const HEIGHT = 180;

/** A small line of [[time, size], ...]; words: what it shows, for those who do not see it. */
export function sparkline(points, words) {
  const width = 120, height = 24;
  if (points.length < 2) return el("span", { class: "no-line", text: "·····", role: "img", "aria-label": `${words}: no history yet` });
  const sizes = points.map(([, size]) => size);
  const low = Math.min(...sizes), high = Math.max(...sizes), range = high - low || 1;
  const first = points[0][0], span = points.at(-1)[0] - first || 1;
  const place = ([at, size]) => [
    ((at - first) / span) * (width - 4) + 2,
    high === low ? height / 2 : height - 3 - ((size - low) / range) * (height - 6),
  ];
  const [endX, endY] = place(points.at(-1));
  return svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${words}: ${sizes[0]} to ${sizes.at(-1)}, lowest ${low}, highest ${high}` },
    svg("path", { d: path(points.map(place)), class: "line" }),
    svg("circle", { cx: endX.toFixed(1), cy: endY.toFixed(1), r: 2.2, class: "dot" }));
}

/**
 * A chart of lines over time. series: [{name, values: [number or null]}], as long as times.
 * show: a number in words.
 */
export function chart(title, times, series, show, { fromZero = true } = {}) {
  const known = series.flatMap((one) => one.values.filter((value) => value !== null));
  const top = nice(Math.max(...known, 0));
  const bottom = fromZero || !known.length ? 0 : Math.min(...known);
  const range = top - bottom || 1;
  const first = times[0] ?? 0, span = (times.at(-1) ?? 1) - first || 1;
  const lines = series.flatMap((one, number) => {
    const places = one.values.map((value, at) => value === null ? null
      : [((times[at] - first) / span) * WIDTH, HEIGHT - ((value - bottom) / range) * (HEIGHT - 4) - 2]);
    return [svg("path", { class: `line line-${number}`, d: path(places) }),
      svg("path", { class: `line line-${number} alone`, d: lonely(places) })];
  });
  const now = series.map((one) => `${one.name} ${show(one.values.at(-1) ?? null)}`).join(", ");
  const grid = [0.25, 0.5, 0.75, 1].map((share) =>
    svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT - share * (HEIGHT - 4) - 2, y2: HEIGHT - share * (HEIGHT - 4) - 2 }));
  return el("figure", { class: "chart" },
    el("figcaption", {}, el("h2", { text: title }), legend(series, show)),
    el("div", { class: "plot" },
      el("div", { class: "scale", "aria-hidden": "true" }, el("span", { text: show(top) }), el("span", { text: show(bottom) })),
      svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
        "aria-label": times.length ? `${title}. Now: ${now}.` : `${title}. Nothing yet.` }, grid, lines)),
    el("div", { class: "times", "aria-hidden": "true" },
      el("span", { text: clock(times[0]) }), el("span", { text: times.length ? clock(times.at(-1)) : "waiting for the first samples" })));
}

function legend(series, show) {
  if (series.length < 2) return null;
  return el("ul", { class: "legend" }, series.map((one, number) =>
    el("li", {},
      svg("svg", { viewBox: "0 0 22 8", class: "swatch", "aria-hidden": "true" },
        svg("path", { d: "M0 4H22", class: `line line-${number}` })),
      el("span", { text: one.name }), " ", el("b", { text: show(one.values.at(-1) ?? null) }))));
}

const at = ([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`;

/** A line through places; null makes a gap. */
function path(places) {
  return places.map((place, index) => (place === null ? "" : `${places[index - 1] ? "L" : "M"}${at(place)}`)).join("");
}

/** Dots where a place between two gaps would be no line. */
function lonely(places) {
  return places.map((place, index) => (place && !places[index - 1] && !places[index + 1] ? `M${at(place)}h.1` : "")).join("");
}

/** The next round number above. */
function nice(number) {
  if (number <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= number);
}

function clock(at) {
  return at === undefined ? "" : new Date(at * 1000).toLocaleTimeString("en-GB");
}
