// The API reference, drawn from /openapi.json: what this very server takes, with its limits.

import { code, el, problem, table } from "./dom.js";

const METHODS = ["get", "post", "put", "delete"];
const GROUPS = [
  ["Events and queries", /^\/v3\/(events|graphql)|^\/schema/],
  ["Segments", /^\/v3\/segments/],
  ["Audiences and imports", /^\/v3\/(audiences|imports)/],
  ["Customers", /^\/v3\/(customers|compliance)/],
  ["Operations", /./],
];
const DEPTH_MAX = 6;

const main = document.getElementById("main");
const contents = document.getElementById("contents");

function draw(spec) {
  document.getElementById("version").textContent = `${spec.info.title} ${spec.info.version}, OpenAPI ${spec.openapi}`;
  main.replaceChildren(el("h1", { text: "API reference" }), el("p", { class: "lead", text: spec.info.description }),
    el("p", { class: "lead" }, "Keys go into the header ", code("x-api-key"), ". ", Object.values(spec.components.securitySchemes)[0].description));
  const operations = Object.entries(spec.paths).flatMap(([path, shared]) =>
    METHODS.filter((method) => shared[method]).map((method) => ({ path, method, shared, ...shared[method] })));
  const grouped = Map.groupBy(operations, ({ path }) => GROUPS.find(([, pattern]) => pattern.test(path))[0]);
  for (const [name] of GROUPS) {
    const found = grouped.get(name) ?? [];
    contents.append(el("h2", { text: name }), el("ul", {}, found.map((one) =>
      el("li", {}, el("a", { href: `#${one.operationId}` }, verb(one.method), el("span", { text: one.path }))))));
    main.append(...found.map((one) => operation(spec, one)));
  }
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

const verb = (method) => el("span", { class: `verb ${method}`, text: method });

function operation(spec, one) {
  const parameters = [...(one.shared.parameters ?? []), ...(one.parameters ?? [])];
  const open = one.security?.length === 0;
  return el("section", { class: "operation", id: one.operationId, "aria-labelledby": `${one.operationId}-title` },
    el("h2", { id: `${one.operationId}-title` }, verb(one.method), one.path),
    el("p", {}, one.summary, open ? el("span", { class: "note", text: " No key is needed." }) : null),
    one.description ? el("p", { class: "lead", text: one.description }) : null,
    parameters.length ? table(`Parameters of ${one.operationId}`, [
      { title: "Parameter", cell: (row) => [code(row.name), row.required ? " (required)" : ""] },
      { title: "In", cell: (row) => row.in },
      { title: "Type", cell: (row) => typeOf(spec, row.schema ?? {}) },
      { title: "Meaning", cell: (row) => row.description ?? "" },
    ], parameters, "") : null,
    one.requestBody ? el("div", {}, el("h3", { text: "Body" }), el("p", { class: "note", text: one.requestBody.description }), contentsOf(spec, one.requestBody.content)) : null,
    el("h3", { text: "Answers" }),
    Object.entries(one.responses).map(([status, response]) => {
      const shown = [el("code", { text: status }), ` ${response.description}`];
      return response.content
        ? el("details", {}, el("summary", {}, shown), contentsOf(spec, response.content))
        : el("p", {}, shown);
    }),
    el("h3", { text: "Example" }), example(one, open));
}

function contentsOf(spec, content) {
  return Object.entries(content).map(([mediaType, { schema }]) =>
    el("div", {}, el("p", { class: "note" }, code(mediaType)), schema ? tree(spec, schema, 0) : null));
}

const resolved = (spec, schema) =>
  schema.$ref ? { title: schema.$ref.split("/").pop(), ...schema.$ref.slice(2).split("/").reduce((node, part) => node[part], spec) } : schema;

/** A schema as nested lists. */
function tree(spec, schema, depth) {
  const found = resolved(spec, schema);
  const inner = found.items ?? (typeof found.additionalProperties === "object" ? found.additionalProperties : null);
  if (depth > DEPTH_MAX) return el("p", { class: "note", text: "…" });
  if (found.properties) {
    return el("ul", { class: "tree" }, Object.entries(found.properties).map(([name, one]) =>
      el("li", {}, code(name), found.required?.includes(name) ? "" : el("span", { class: "note", text: " optional" }), " ",
        el("span", { class: "type" }, typeOf(spec, one)), described(spec, one), nested(spec, one, depth + 1))));
  }
  const either = found.anyOf ?? found.oneOf;
  if (either) return el("ul", { class: "tree" }, either.map((one) => el("li", {}, el("span", { class: "type" }, typeOf(spec, one)), nested(spec, one, depth + 1))));
  if (inner) return el("div", {}, el("span", { class: "type" }, typeOf(spec, found)), nested(spec, inner, depth + 1));
  return el("p", {}, el("span", { class: "type" }, typeOf(spec, found)), described(spec, found));
}

const described = (spec, schema) => {
  const text = resolved(spec, schema).description;
  return text ? el("span", { class: "note", text: ` ${text}` }) : null;
};

function nested(spec, schema, depth) {
  const found = resolved(spec, schema);
  return found.properties || found.anyOf || found.oneOf || found.items || typeof found.additionalProperties === "object"
    ? tree(spec, found, depth) : null;
}

/** A schema's type and bounds in a few words. */
function typeOf(spec, schema) {
  const found = resolved(spec, schema);
  if (found.const !== undefined) return JSON.stringify(found.const);
  if (found.enum) return found.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (found.anyOf || found.oneOf) return found.title ?? "one of";
  const type = [found.type ?? "any"].flat().join(" or ");
  const bounds = [
    found.minimum !== undefined ? `≥ ${found.minimum}` : null, found.maximum !== undefined ? `≤ ${found.maximum}` : null,
    found.minLength !== undefined ? `at least ${found.minLength} characters` : null,
    found.maxLength !== undefined ? `at most ${found.maxLength} characters` : null,
    found.maxItems !== undefined ? `at most ${found.maxItems}` : null, found.pattern ? `like ${found.pattern}` : null,
  ].filter(Boolean);
  return `${found.title && found.title !== type ? `${found.title}: ` : ""}${type}${bounds.length ? `, ${bounds.join(", ")}` : ""}`;
}

function example(one, open) {
  const path = one.path.replaceAll(/\{(\w+)\}/g, (_, name) => name.toUpperCase());
  const lines = [`curl${one.method === "get" ? "" : ` -X ${one.method.toUpperCase()}`} ${location.origin}${path}`];
  if (!open) lines.push("-H 'x-api-key: KEY'");
  const mediaType = one.requestBody && Object.keys(one.requestBody.content)[0];
  if (mediaType) lines.push(`-H 'content-type: ${mediaType}'`, "--data-binary @BODY");
  return el("pre", { tabindex: 0, text: lines.join(" \\\n  ") });
}

try {
  draw(await (await fetch("/openapi.json", { credentials: "omit" })).json());
} catch (error) {
  main.replaceChildren(el("h1", { text: "API reference" }), problem(error));
}
