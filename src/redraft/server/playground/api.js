// The server's API: its model, and an answer as a stream of events.

const RETRY_SECONDS = 2;
const MAX_RETRY_SECONDS = 120;

export class ApiError extends Error {
  // retryAfter: seconds after which the server asks to be tried again, or null.
  constructor(message, { status = 0, param = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, param, retryAfter });
  }
}

export async function fetchModel() {
  const response = await request("/v1/models", {});
  const { data } = await response.json();
  return data[0];
}

// The token ids of a text.
export async function tokenize(prompt) {
  const response = await request("/tokenize", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ prompt, add_special_tokens: false }),
  });
  return (await response.json()).tokens;
}

// Yields {event, data} for each server-sent event; ends at [DONE]. Raises ApiError for anything else.
export async function* chat(body, signal) {
  const response = await request("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  try {
    for await (const { event, data } of serverSentEvents(response.body)) {
      if (data === "[DONE]") return;
      const parsed = JSON.parse(data);
      if (parsed.error) throw new ApiError(parsed.error.message, { param: parsed.error.param });
      yield { event, data: parsed };
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
  }
  throw new ApiError("The connection broke off before the answer was complete. What has arrived is kept.");
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server can't be reached. Is it still running?");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new ApiError(said.error?.message ?? `The server answered with status ${response.status}.`, {
    status: response.status,
    param: said.error?.param ?? null,
    retryAfter: [429, 503].includes(response.status) ? secondsOf(response.headers.get("Retry-After")) : null,
  });
}

function secondsOf(header) {
  const seconds = /^\d+$/.test(header ?? "") ? Number(header) : RETRY_SECONDS;
  return Math.min(Math.max(seconds, 1), MAX_RETRY_SECONDS);
}

async function* serverSentEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (pending + value).split(/\r?\n\r?\n/);
    pending = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/);
      const values = (name) => lines.filter((line) => line.startsWith(`${name}:`))
        .map((line) => line.slice(name.length + 1).replace(/^ /, ""));
      const data = values("data").join("\n");
      // A block without data is a comment, with which a server keeps a quiet connection open.
      if (data) yield { event: values("event")[0] ?? "message", data };
    }
  }
}
