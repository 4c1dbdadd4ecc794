// GraphiQL with a field for the key and queries to begin with. The key lives in this page alone: GraphiQL's own headers
// editor is switched off, because GraphiQL would keep what is written there.

(() => {
  const EXAMPLES = [
    { query: `# Which segments is a customer in? (a public key is enough)
query Customer($user: String) {
  customer(fs_user_id: $user) {
    audiences(subset: ["vip_gold", "buyers_90d"], states: ["qualified", "not_qualified"]) {
      edges { node { name state qualified_at updated_at } }
    }
  }
}`, variables: `{ "user": "u-17" }` },
    { query: `# All segments with their exact sizes
query Segments($first: Int, $after: String) {
  audiences(first: $first, after: $after) {
    totalCount
    pageInfo { hasNextPage endCursor }
    edges { node { name revision description is_ready size external_audience_id } }
  }
}`, variables: `{ "first": 20 }` },
    { query: `# The members of one segment (needs a private key)
query Members($name: String!) {
  audience(name: $name) {
    name
    size
    members(first: 10) {
      totalCount
      edges { node { identifier value qualified_at source } }
    }
  }
}`, variables: `{ "name": "vip_gold" }` },
  ];
  let key = "";
  const { createElement } = React;
  const state = document.getElementById("key-state");
  const field = document.getElementById("key");

  /** Sends a query; GraphiQL also shows what was refused. */
  async function ask(request) {
    if (!key) return { errors: [{ message: "Give a key in the field above first." }] };
    const response = await fetch("/v3/graphql", {
      method: "POST",
      headers: { "content-type": "application/json", "accept": "application/json", "x-api-key": key },
      body: JSON.stringify(request),
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
