// From a request to a recording of its answer.

import { chat } from "./api.js";

// Fills a recording, waiting where the server asks for it. What went wrong is on the page afterwards.
export async function receive(recording, body, { signal, notice }) {
  for (;;) {
    try {
      recording.started = performance.now();
      for await (const event of chat(body, signal)) recording.take(event);
      break;
    } catch (error) {
      if (error.name === "AbortError" || signal.aborted) break;
      if (!error.retryAfter) {
        notice.show(error);
        break;
      }
      await notice.wait(error, signal);
      if (signal.aborted) break;
    }
  }
  recording.end();
}
