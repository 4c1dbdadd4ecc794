// Runs every server audit of the npm package graphql-http against the address in argv[2] with the key in argv[3] and
// prints one JSON list: {id, name, status, reason} for each audit; status is ok, notice, warn or error.

import { serverAudits } from "graphql-http";

const [url, key] = process.argv.slice(2);

function fetchWithKey(input, init = {}) {
  const headers = new Headers(init.headers);
  headers.set("x-api-key", key);
  return fetch(input, { ...init, headers });
}

const results = [];
for (const audit of serverAudits({ url, fetchFn: fetchWithKey })) {
  const { id, name, status, reason = null } = await audit.fn();
  results.push({ id, name, status, reason });
}
console.log(JSON.stringify(results));
