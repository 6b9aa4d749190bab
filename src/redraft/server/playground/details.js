// What is known of one token: when it settled, how sure the step is of it, and what else could stand there.

import { visible } from "./canvas.js";
import { verifiedCells } from "./recording.js";
import { seconds } from "./stage.js";

const LEAST_PROBABILITY = 0.0005;

export function describeToken(recording, frame, position) {
  const { draft } = frame;
  const place = `Position ${position + 1} of ${draft.tokens.length}, canvas ${frame.canvas + 1}`;
  const decision = draft.accepted[position] ? "accepted" : "not accepted, noise stands in its place";
  const settled = recording.ended && recording.settledAt(frame.canvas, position);
  const parts = [
    paragraph(`${place}; its likeliest token:`, "quiet"),
    paragraph(visible(draft.tokens[position]) || "empty", "token"),
    paragraph(settled ? `Settled at step ${settled}.` : "May still change."),
    paragraph(`At step ${frame.step}: ${decision}; entropy ${draft.entropies[position].toFixed(3)} nats.`),
  ];
  if (draft.forced?.[position]) parts.push(paragraph("Forced: the schema leaves nothing else here, whatever the model says."));
  const alternatives = draft.alternatives?.[position] ?? [];
  if (alternatives.length) {
    parts.push(paragraph(`Likeliest at step ${frame.step}:`, "quiet"), table(alternatives));
  }
  return parts;
}

// A token of a verified answer: the round that it was written in, and whether its draft had it.
export function describeVerified(recording, position) {
  const cell = verifiedCells(recording, Infinity).cells[position];
  if (!cell) return [paragraph("Nothing is written here yet.", "quiet")];
  const round = recording.rounds[cell.round];
  return [
    paragraph(`Token ${position + 1}, round ${cell.round + 1}`, "quiet"),
    paragraph(visible(cell.text), "token"),
    paragraph(cell.state === "kept" ?
      "Kept: the draft had it, and the causal pass would have written it too." :
      "Free: the causal pass wrote it itself, behind the last token that it agreed with."),
    paragraph(`Written ${seconds(round.at)} after the request.`),
  ];
}

// A token of the other way of decoding: there is nothing but when it was written.
export function describeWritten(recording, position) {
  const piece = recording.pieces[position];
  if (!piece) return [paragraph("Nothing is written here yet.", "quiet")];
  return [
    paragraph(`Token ${position + 1}`, "quiet"),
    paragraph(visible(piece.text), "token"),
    paragraph(`Written ${seconds(piece.at)} after the request.`),
  ];
}

function table(alternatives) {
  const list = document.createElement("ol");
  list.className = "alternatives";
  for (const [text, logprob] of alternatives) {
    const probability = Math.exp(logprob);
    const row = document.createElement("li");
    const meter = document.createElement("span");
    meter.className = "meter";
    meter.style.width = `${probability * 100}%`;
    const percent = probability < LEAST_PROBABILITY ? "< 0.1 %" : `${(probability * 100).toFixed(1)} %`;
    row.append(span(visible(text) || "empty", "token"), span("", "track", meter), span(percent, "percent"));
    list.append(row);
  }
  return list;
}

function span(text, kind, ...children) {
  const made = document.createElement("span");
  made.className = kind;
  made.textContent = text;
  made.append(...children);
  return made;
}

function paragraph(text, kind = "") {
  const made = document.createElement("p");
  made.textContent = text;
  made.className = kind;
  return made;
}
