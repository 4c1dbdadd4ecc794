// The API, with the key of whoever signed in. The key lives in this variable and nowhere else: a reload forgets it.

let key = null;
let open = false;

export class ApiError extends Error {
  constructor(status, message, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

export const session = {
  get open() { return open; },
  /** Called when the server no longer takes the key. */
  ended: () => {},
  /** Try a key. Resolves with the status; rejects where it is not private, and then nothing has changed. */
  async begin(secret) {
    key = secret;
    try {
      const status = await get("/v3/status");
      open = true;
      return status;
    } catch (error) {
      key = null;
      throw error.status === 403
        ? new ApiError(403, "This key is not known here, or it is a public one; the console needs a private key.")
        : error;
    }
  },
  end() { key = null; open = false; },
};

/** The answer to a request: {status, headers, body}. Rejects with ApiError. */
export async function ask(method, path, { body, headers = {} } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: { "x-api-key": key ?? "", ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      referrerPolicy: "no-referrer",
    });
  } catch {
    throw new ApiError(0, "The server cannot be reached.");
  }
  const shown = await read(response);
  if (!response.ok) throw refused(response.status, shown, response.headers.get("retry-after"));
  return { status: response.status, headers: response.headers, body: shown };
}

export const get = async (path) => (await ask("GET", path)).body;

/** A GraphQL query's data. */
export async function query(text, variables) {
  const { body } = await ask("POST", "/v3/graphql", { body: { query: text, variables } });
  if (body.errors) throw new ApiError(200, body.errors[0].message, body);
  return body.data;
}

/** Save what a path gives as a file. */
export async function download(path, name) {
  const response = await fetch(path, { headers: { "x-api-key": key ?? "" }, cache: "no-store", credentials: "omit" })
    .catch(() => { throw new ApiError(0, "The server cannot be reached."); });
  if (!response.ok) throw refused(response.status, await read(response), response.headers.get("retry-after"));
  const address = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Send a file; progress: called with the share that is sent. fetch cannot tell that, so the older interface does it. */
export function upload(path, file, mediaType, progress) {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.open("POST", path);
    request.setRequestHeader("x-api-key", key ?? "");
    request.setRequestHeader("content-type", mediaType);
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onerror = () => reject(new ApiError(0, "The server cannot be reached, or it ended the upload."));
    request.onabort = () => reject(new ApiError(0, "The upload was stopped."));
    request.onload = () => {
      let body = null;
      try { body = JSON.parse(request.responseText); } catch { /* told by its status */ }
      if (request.status === 202) resolve(body);
      else reject(refused(request.status, body, request.getResponseHeader("retry-after")));
    };
    request.send(file);
  });
  return { done, stop: () => request.abort() };
}

async function read(response) {
  try { return await response.json(); } catch { return null; }
}

function refused(status, body, wait) {
  if (status === 403 && body?.message === "Forbidden" && open) session.ended();
  const line = body?.detail?.line ? ` (line ${body.detail.line})` : "";
  const said = body?.message ?? body?.detail?.message ?? body?.errors?.[0]?.message ?? `The server answered ${status}.`;
  const again = /^\d+$/.test(wait ?? "") ? ` Try again in ${wait} s.` : "";
  return new ApiError(status, said + line + again, body);
}
