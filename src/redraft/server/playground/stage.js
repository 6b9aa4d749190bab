// One way of decoding on the page: its clock, its canvas, its figures and its text.

import { Canvas, visible } from "./canvas.js";
import { pretty } from "./pretty.js";
import { cellsOf, verifiedCells } from "./recording.js";

const DRAFT_ROOM = 24; // cells that a verified answer takes at least

export class Stage {
  constructor(root, inspect) {
    this.root = root;
    this.canvas = new Canvas(root.querySelector(".cells"), root.querySelector(".unfold"), inspect);
    this.clock = root.querySelector(".clock");
    this.caption = root.querySelector(".caption");
    this.before = root.querySelector(".before");
    this.figures = root.querySelector(".figures");
    this.title = root.querySelector(".answer-title");
    this.answer = root.querySelector(".answer");
    this.rounds = root.querySelector(".rounds");
    this.firstTitle = this.title.textContent;
  }

  blank(length) {
    this.canvas.blank(length);
    this.draw({ before: "", text: "", clock: null, figures: [], title: this.firstTitle, caption: "" });
  }

  tick(ms) {
    this.clock.textContent = seconds(ms);
  }

  // cells: left out, the canvas stays as it is. start: number of the first cell's token in the answer.
  // rounds: of a verified answer, which are listed below it.
  draw({ before, cells, text, clock, figures, title, caption, start = 0, rounds = [] }) {
    this.start = start;
    if (cells) this.canvas.draw(cells);
    this.before.hidden = !before;
    this.before.textContent = before;
    if (clock === null) this.clock.textContent = "–";
    else this.tick(clock);
    this.caption.textContent = caption;
    this.title.textContent = title;
    this.answer.replaceChildren(...pretty(text));
    this.figures.replaceChildren(...figures.flatMap(([name, value]) => pair(name, value)));
    this.rounds?.replaceChildren(...rounds.map(line));
  }
}

// A recording as it was at one of its frames; as it ended where `finished` says so.
export function diffusionView(recording, at, finished) {
  const frame = recording.frames[at];
  const { draft } = frame;
  const drafted = frame.before + draft.text;
  const complete = finished && recording.complete;
  const total = recording.framesOf(frame.canvas).length;
  return {
    before: frame.before,
    cells: cellsOf(frame, recording.frames[at - 1]),
    text: complete ? recording.text : drafted,
    clock: finished ? recording.total : frame.at,
    title: complete ? "Answer" : "Draft: the answer, if it stopped at this step",
    caption: `canvas ${frame.canvas + 1}, step ${frame.step} of ${
      recording.ended ? total : `at most ${frame.step + draft.steps_left}`}`,
    figures: [
      ["steps", recording.ended ? stepsOf(recording) : String(at + 1)],
      ...constraintFigures(recording, draft),
      ...figuresOf(recording),
    ],
  };
}

// Token by token, as it was `at` ms after the request.
export function tokensView(recording, at, length) {
  const pieces = recording.pieces.filter((piece) => piece.at <= at);
  const finished = recording.ended && at >= recording.total;
  const start = length * Math.floor(Math.max(pieces.length - 1, 0) / length);
  const joined = (some) => some.map((piece) => piece.text).join("");
  const written = pieces.slice(start).map(({ text }, index, all) => ({
    text, state: !finished && index === all.length - 1 ? "accepted" : "settled",
  }));
  const empty = Array.from({ length: length - written.length }, () => ({ text: "", state: "blank" }));
  return {
    before: joined(pieces.slice(0, start)),
    cells: [...written, ...empty],
    text: joined(pieces),
    clock: Math.min(at, recording.total ?? at),
    title: finished ? "Answer" : "Written so far",
    caption: `token ${pieces.length}`,
    start,
    figures: figuresOf(recording),
  };
}

// By verified drafts, as it was `at` ms after the request.
export function verifiedView(recording, at, length) {
  const { cells, behind } = verifiedCells(recording, at);
  const finished = recording.ended && at >= recording.total;
  const start = length * Math.floor(Math.max(cells.length - 1, 0) / length);
  const shown = [...cells.slice(start), ...behind].slice(0, length);
  // Drafts are shorter than a canvas that is an answer: there is no room to keep for it.
  const room = Math.min(length, Math.max(shown.length, DRAFT_ROOM));
  const empty = Array.from({ length: room - shown.length }, () => ({ text: "", state: "blank" }));
  const rounds = recording.rounds.filter((round) => round.at <= at);
  return {
    before: cells.slice(0, start).map(({ text }) => text).join(""),
    cells: [...shown, ...empty],
    text: recording.pieces.filter((piece) => piece.at <= at).map(({ text }) => text).join(""),
    clock: Math.min(at, recording.total ?? at),
    title: finished ? "Answer" : "Written so far",
    caption: `round ${rounds.length}`,
    start,
    rounds,
    figures: [...roundFigures(rounds), ...verificationFigures(recording), ...figuresOf(recording)],
  };
}

// Of the round that is shown.
function roundFigures(rounds) {
  const { kept, written, rejected } = rounds.at(-1) ?? { kept: [], written: [], rejected: [] };
  return [
    ["kept", String(kept.length)],
    ["free", String(written.length)],
    ["rejected", String(rejected.length)],
  ];
}

function verificationFigures({ verification }) {
  return verification ? [
    ["causal passes", String(verification.rounds)],
    ["denoising steps", String(verification.denoiser_passes)],
    ["tokens per causal pass", fixed(verification.kept_per_round, 1)],
  ] : [];
}

export function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

export function seconds(ms) {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 3 : 1)} s`;
}

// Of the whole answer, whichever moment of it is shown.
function figuresOf({ usage, total, firstText, parts }) {
  return [
    ...(parts ? [["parts", String(parts)]] : []),
    ["tokens per forward", fixed(usage?.tokens_per_forward, 2)],
    ["tokens/s", fixed(usage && usage.completion_tokens / (total / 1000), 0)],
    ["first text", firstText === null ? "–" : seconds(firstText)],
  ];
}

// Of an answer that is held to a schema: tokens that it forced in this draft, steps that it guided in all.
function constraintFigures({ constraint }, { forced }) {
  const figures = forced ? [["forced tokens", String(forced.filter(Boolean).length)]] : [];
  if (constraint) figures.push(["guided steps", String(constraint.guided_steps)]);
  return figures;
}

function stepsOf(recording) {
  const canvases = [...new Set(recording.frames.map((frame) => frame.canvas))];
  const counts = canvases.map((canvas) => recording.framesOf(canvas).length);
  return counts.length > 1 ? `${recording.frames.length} (${counts.join(" + ")})` : String(counts[0]);
}

function fixed(value, digits) {
  return Number.isFinite(value) ? value.toFixed(digits) : "–";
}

// A round: what the causal pass kept of the draft, wrote itself, and rejected.
function line({ kept, written, rejected }) {
  const item = document.createElement("li");
  for (const [kind, tokens] of [["kept", kept], ["free", written], ["rejected", rejected]]) {
    item.append(...tokens.map((text) => {
      const chip = document.createElement(kind === "rejected" ? "del" : "span");
      chip.className = `chip ${kind}`;
      chip.textContent = visible(text);
      return chip;
    }));
  }
  return item;
}

function pair(name, value) {
  const term = document.createElement("dt");
  const definition = document.createElement("dd");
  term.textContent = name;
  definition.textContent = value;
  // A pair in a group of its own can be laid out as one.
  const group = document.createElement("div");
  group.append(term, definition);
  return [group];
}
