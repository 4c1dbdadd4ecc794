// GraphiQL with a field for the key and queries to begin with. The key lives in this page alone: GraphiQL's own headers
// editor is switched off, because GraphiQL would keep what is written there.

(async () => {
  // The first identifier that this server takes.
  const schema = await (await fetch("/schema.graphql", { credentials: "omit" })).text();
  const identifier = /(\w+): String/.exec(schema.split("customer(")[1])?.[1] ?? "fs_user_id";
  const EXAMPLES = [
    `# Which segments is a customer in? (a public key is enough)
query Customer {
  customer(${identifier}: "u-17") {
    audiences(states: ["qualified", "not_qualified"]) {
      edges { node { name state qualified_at updated_at } }
    }
  }
}`,
    `# All segments with their exact sizes
query Segments {
  audiences(first: 20) {
    totalCount
    pageInfo { hasNextPage endCursor }
    edges { node { name revision description is_ready size external_audience_id } }
  }
}`,
    `# The members of one segment (needs a private key)
query Members {
  audience(name: "vip_gold") {
    name
    size
    members(first: 10) {
      totalCount
      edges { node { identifier value qualified_at source } }
    }
  }
}`,
  ].map((query) => ({ query }));
  let key = "";
  const { createElement } = React;
  const state = document.getElementById("key-state");
  const field = document.getElementById("key");

  /** Sends a query; GraphiQL also shows what was refused. */
  async function ask(request) {
    if (!key) return { errors: [{ message: "Give a key in the field above first." }] };
    // Right after a change of tabs GraphiQL may still name the operation of the one before.
    const { operationName, ...rest } = request;
    const named = operationName && new RegExp(`\\b${operationName}\\b`).test(request.query) ? request : rest;
    const response = await fetch("/v3/graphql", {
      method: "POST",
      headers: { "content-type": "application/json", "accept": "application/json", "x-api-key": key },
      body: JSON.stringify(named),
      credentials: "omit",
    });
    if (response.status === 403) return { errors: [{ message: "Forbidden: give a key above that is known here." }] };
    return response.json();
  }

  // In memory: nothing that was asked, and no identifier in it, stays in the browser.
  const kept = new Map();
  const storage = {
    get length() { return kept.size; },
    getItem: (name) => kept.get(name) ?? null,
    setItem: (name, value) => kept.set(name, value),
    removeItem: (name) => kept.delete(name),
    clear: () => kept.clear(),
  };

  const root = ReactDOM.createRoot(document.getElementById("graphiql"));
  /** Another function makes GraphiQL ask for the schema again, with the key of now. */
  function draw() {
    const fetcher = (request) => ask(request);
    root.render(createElement(GraphiQL, { fetcher, storage, defaultTabs: EXAMPLES,
      isHeadersEditorEnabled: false, shouldPersistHeaders: false }));
  }
  document.getElementById("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    key = field.value;
    const answer = await ask({ query: "{ __typename }" });
    state.textContent = answer.errors ? "This key is not known here." : "The key is in use.";
    draw();
  });
  draw();
  field.focus();
})();
