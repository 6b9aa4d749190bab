// One answer as it arrived: its steps and its text, each with the real time in ms since the request was sent.

export class Recording {
  constructor() {
    this.started = performance.now();
    this.frames = []; // one for each denoising step: {at, canvas, step, before, draft}
    this.pieces = []; // committed text: {at, text}
    this.rounds = []; // causal passes over drafts, or without one: {at, kept, written, rejected}, lists of tokens
    this.text = "";
    this.usage = null;
    this.verification = null; // what the drafts came to, of an answer that was verified
    this.parts = null; // the prompts whose answers it was made from, where there were several
    this.constraint = null; // what a constraint had to do, of an answer that was held to one
    this.warnings = []; // what the server says may be wrong with prompt and answer
    this.trust = null; // what it says is known about the answer
    this.spans = {}; // of a grounded answer, where in the prompt each of its texts stands
    this.total = null; // ms; null while it runs
    this.ended = false;
    this.complete = false;
  }

  get elapsed() {
    return performance.now() - this.started;
  }

  get firstText() {
    return this.pieces[0]?.at ?? null;
  }

  // How many tokens of the prompt the server had read for an earlier request.
  get reused() {
    return this.usage?.prompt_tokens_details?.cached_tokens ?? 0;
  }

  take({ event, data }) {
    const at = this.elapsed;
    if (event === "draft") {
      const { draft } = data;
      if (draft.index !== 0) return;
      this.frames.push({ at, canvas: draft.canvas, step: draft.step, before: this.text, draft });
      return;
    }
    if (event === "verified") {
      const { index, ...round } = data.verified;
      if (index === 0) this.rounds.push({ at, ...round });
      return;
    }
    if (data.usage) this.usage = data.usage;
    if (data.warnings) this.warnings = data.warnings;
    for (const { delta, finish_reason: reason, trust, spans, canvas } of data.choices) {
      if (trust) this.trust = trust;
      if (spans) this.spans = spans;
      if (canvas?.constraint) this.constraint = canvas.constraint;
      if (canvas?.verification) this.verification = canvas.verification;
      if (canvas?.parts) this.parts = canvas.parts;
      const text = textOf(delta);
      if (text) {
        this.pieces.push({ at, text });
        this.text += text;
      }
      if (reason) {
        this.total = at;
        this.complete = true;
      }
    }
  }

  end() {
    this.total ??= this.elapsed;
    this.ended = true;
  }

  // The last frame that had arrived `at` ms after the request, or -1.
  frameAt(at) {
    return this.frames.findLastIndex((frame) => frame.at <= at);
  }

  framesOf(canvas) {
    return this.frames.filter((frame) => frame.canvas === canvas);
  }

  // The step from which on the likeliest token of a position did not change any more.
  settledAt(canvas, position) {
    const frames = this.framesOf(canvas);
    const last = frames.at(-1).draft.tokens[position];
    const changed = frames.findLastIndex((frame) => frame.draft.tokens[position] !== last);
    return frames[changed + 1].step;
  }
}

// A model that thinks or calls tools writes this too; leaving it out would make the answer look empty.
function textOf(delta) {
  const calls = (delta.tool_calls ?? []).flatMap(({ function: call }) => [call?.name, call?.arguments]);
  return [delta.reasoning_content, delta.content, ...calls].map((text) => text ?? "").join("");
}

// How a step's canvas looks: {text, state, forced} for each position. forced: the schema leaves nothing else there.
export function cellsOf(frame, previous) {
  const { draft } = frame;
  const before = previous?.canvas === frame.canvas ? previous.draft.tokens : [];
  const length = draft.finished ? tokensWithin(draft.tokens, draft.text) : Infinity;
  return draft.tokens.map((token, position) => {
    // The last step's canvas is what gets committed: no noise is left in it, whatever was accepted.
    const forced = Boolean(draft.forced?.[position]);
    if (draft.finished) return { text: token, state: position < length ? "settled" : "beyond", forced };
    if (!draft.accepted[position]) return { text: draft.noisy[position], state: "noise", forced: false };
    return { text: draft.noisy[position], state: before[position] === token ? "settled" : "accepted", forced };
  });
}

// How a verified answer stood `at` ms after the request: {text, state, round} for each token, its last draft behind them.
export function verifiedCells(recording, at) {
  const rounds = recording.rounds.filter((round) => round.at <= at);
  const cells = rounds.flatMap(({ kept, written }, index) => [
    ...kept.map((text) => ({ text, state: "kept", round: index })),
    ...written.map((text) => ({ text, state: "free", round: index })),
  ]);
  if (recording.ended && at >= recording.total) return { cells, behind: [] };
  const last = rounds.at(-1);
  const frame = recording.frames[recording.frameAt(at)];
  // A draft that is denoised stands where the one before was rejected.
  const isDrafting = frame && frame.at > (last?.at ?? -1);
  const behind = isDrafting ? cellsOf(frame) : (last?.rejected ?? []).map((text) => ({ text, state: "rejected" }));
  return { cells, behind };
}

// How many tokens it takes to write `text`; what follows them stands behind the answer's end.
function tokensWithin(tokens, text) {
  let written = 0;
  const at = tokens.findIndex((token) => {
    const enough = written >= text.length;
    written += token.length;
    return enough;
  });
  return at < 0 ? tokens.length : at;
}
