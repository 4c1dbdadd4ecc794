// Elements without markup: whatever comes from elsewhere becomes text or an attribute, never HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Properties named on... are listeners, `text` is its text, everything else an attribute (null: none). */
export function el(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

/** The same for SVG. */
export function svg(name, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, name), properties, children);
}

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Says something to everybody, also to those who listen. */
export function tell(text) {
  const news = document.getElementById("news");
  news.textContent = text;
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => (news.textContent = ""), 6000);
}

/** A message about what went wrong, announced at once. */
export function problem(error) {
  return el("p", { class: "problem", role: "alert", text: error.message });
}

/**
 * A table. columns: {title, cell: row → child, kind?}; kind "number" is right-aligned. It keeps its meaning where a
 * narrow screen shows its rows as cards.
 */
export function table(caption, columns, rows, empty) {
  if (!rows.length) return el("p", { class: "empty", text: empty });
  const head = columns.map((column) =>
    el("th", { scope: "col", role: "columnheader", class: column.kind, text: column.title }));
  const body = rows.map((row) =>
    el("tr", { role: "row" }, columns.map((column) =>
      el("td", { role: "cell", class: column.kind, "data-label": column.title }, column.cell(row)))));
  return el("table", { role: "table" },
    el("caption", { class: "unseen", text: caption }),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)),
    el("tbody", { role: "rowgroup" }, body));
}

/** Terms and what they are: [[term, child], ...]. */
export function facts(pairs) {
  return el("dl", { class: "facts" }, pairs.map(([term, value]) =>
    el("div", {}, el("dt", { text: term }), el("dd", {}, value ?? "–"))));
}

/** A labelled field; note: said with it. */
export function field(label, control, note) {
  const id = control.id || (control.id = `field-${++field.count}`);
  const said = note ? el("p", { class: "note", id: `${id}-note`, text: note }) : null;
  if (said) control.setAttribute("aria-describedby", said.id);
  return el("div", { class: "field" }, el("label", { for: id, text: label }), control, said);
}
field.count = 0;

export function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) =>
    el("option", { value, text, selected: value === chosen })));
  return select;
}

const COUNT = new Intl.NumberFormat("en");
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (number) => COUNT.format(number);
export const compact = (number) => (number < 10_000 ? COUNT : COMPACT).format(number);
export const rate = (number) => (number >= 100 ? COUNT.format(Math.round(number)) : String(Math.round(number * 10) / 10));

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (number >= 1024 && at < units.length - 1) { number /= 1024; at += 1; }
  return `${at && number < 100 ? number.toFixed(1) : Math.round(number)} ${units[at]}`;
}

/** A duration in seconds, short. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds * 1000).toPrecision(3).replace(/\.?0+$/, "")} ms`;
  if (seconds < 120) return `${Math.round(seconds * 10) / 10} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** A time (seconds since the epoch or RFC 3339) as this browser's clock shows it; with UTC for whoever points at it. */
export function time(at) {
  if (at === null || at === undefined) return "–";
  const date = new Date(typeof at === "number" ? at * 1000 : at);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return el("time", { datetime: date.toISOString(), title: date.toISOString(), text: `${day} ${clock}` });
}

/** The T of an audience's latest list, with the way to its report as long as that is kept. */
export function lastImport(audience) {
  const { last_import: job, last_import_as_of: at } = audience ?? {};
  return job && job.as_of === at ? el("a", { href: `#/imports/${encodeURIComponent(job.id)}` }, time(job.as_of)) : time(at);
}

export const code = (text) => el("code", { text });
export const badge = (kind, text) => el("span", { class: `badge ${kind}`, text });
