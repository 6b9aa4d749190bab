// What is selected on the page: a part of the answer, to be written anew, or a value's place in the prompt.

// The part of an answer's text that is selected: {text, start, end}; null for none, undefined for a selection elsewhere.
export function selectedPart(answer, text) {
  const chosen = getSelection();
  if (!chosen.rangeCount || !answer.contains(chosen.anchorNode) || !answer.contains(chosen.focusNode)) return undefined;
  const range = chosen.getRangeAt(0);
  const before = document.createRange();
  before.selectNodeContents(answer);
  before.setEnd(range.startContainer, range.startOffset);
  const start = before.cloneContents().textContent.length;
  const end = start + range.cloneContents().textContent.length;
  return end > start ? { text, start, end } : null;
}

// Selects characters from to to of the prompt that was answered, if it still stands there. The server counts code points.
export function showInPrompt(prompt, text, from, to) {
  if (prompt.value !== text) return;
  const points = [...text];
  const units = (count) => points.slice(0, count).join("").length;
  prompt.focus();
  prompt.setSelectionRange(units(from), units(to));
}
