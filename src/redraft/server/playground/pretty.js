// An answer as it is read: JSON gets a line for each of its members, every character of it unchanged.

const JSON_PARTS = /"(?:[^"\\]|\\.)*"|[{}[\],:]|\s+|[^\s"{}[\],:]+/g;
const MAX_INDENT = 6;

// The elements of a text's lines, to be shown one below the other; other text than JSON is left as it is.
export function pretty(text) {
  return isContainer(text) ? linesOf(text.match(JSON_PARTS)) : [text];
}

function isContainer(text) {
  try {
    return /^\s*[[{]/.test(text) && typeof JSON.parse(text) === "object";
  } catch {
    return false;
  }
}

function linesOf(parts) {
  const lines = [lineOf(0)];
  let depth = 0;
  let previous = "";
  parts.forEach((part, at) => {
    const closes = "]}".includes(part);
    if (closes) depth -= 1;
    const isApart = closes ? !isOpening(previous) : isOpening(previous) || previous === ",";
    if (part.trim() && isApart) lines.push(lineOf(depth));
    const next = parts[at + 1]?.trim() ? parts[at + 1] : parts[at + 2];
    lines.at(-1).append(span(part, part[0] !== '"' ? "sign" : next === ":" ? "key" : "string"));
    if (isOpening(part)) depth += 1;
    if (part.trim()) previous = part;
  });
  return lines;
}

const isOpening = (part) => part === "{" || part === "[";

function lineOf(depth) {
  return span("", `line indent-${Math.min(depth, MAX_INDENT)}`);
}

function span(text, kind) {
  const made = document.createElement("span");
  made.className = kind;
  made.textContent = text;
  return made;
}
