// A canvas: one cell for each token, of which one is in the tab order and arrow keys reach the others.

const CONTROL = /^<[^<>\s]{1,24}>$/; // such as <eos>
const MIN_FOLDED = 8; // fewer cells are no reason to hide them
const SHOWN = new Map([[" ", "·"], ["\n", "↵"], ["\t", "⇥"]]);

export class Canvas {
  // inspect(position): a token was pointed at or focused.
  // unfold: the button that shows what follows the answer's end.
  constructor(root, unfold, inspect) {
    this.root = root;
    this.unfold = unfold;
    this.folded = 0;
    this.isUnfolded = false;
    unfold.addEventListener("click", () => {
      this.isUnfolded = !this.isUnfolded;
      this.#fold(this.folded);
    });
    this.inspect = inspect;
    this.cells = [];
    this.current = 0;
    root.addEventListener("pointerover", (event) => this.#visit(event.target));
    root.addEventListener("focusin", (event) => this.#visit(event.target));
    root.addEventListener("keydown", (event) => this.#move(event));
  }

  blank(length) {
    this.draw(Array.from({ length }, () => ({ text: "", state: "blank" })));
  }

  draw(tokens) {
    if (tokens.length !== this.cells.length) this.#resize(tokens.length);
    tokens.forEach(({ text, state, forced }, position) => {
      const cell = this.cells[position];
      const previous = tokens[position - 1];
      const isControl = CONTROL.test(text);
      // The end is written once; the model repeats it up to the canvas's last position.
      const isRepeated = isControl && state !== "noise" && previous?.text === text;
      const isTail = state === "beyond" && previous?.state === "beyond";
      const shown = isRepeated ? "" : visible(text);
      const kind = `cell ${state}${isControl ? " control" : ""}${isTail ? " tail" : ""}${forced ? " forced" : ""}`;
      if (cell.textContent === shown && cell.className === kind) return;
      cell.textContent = shown;
      cell.dataset.state = state;
      cell.className = kind;
      cell.setAttribute("aria-label", `${position + 1}: ${visible(text) || "empty"}, ${SPOKEN[state]}${forced ? ", forced" : ""}`);
    });
    const folded = tokens.filter(({ state }) => state === "beyond").length - 1;
    this.#fold(folded >= MIN_FOLDED ? folded : 0);
  }

  // Hides the cells behind the answer's end, unless they were asked for.
  #fold(count) {
    this.unfold.hidden = !count;
    this.unfold.textContent = this.isUnfolded ? "Hide what follows the end" : `${count} more after the end`;
    this.unfold.setAttribute("aria-expanded", String(this.isUnfolded));
    this.root.classList.toggle("folded", count > 0 && !this.isUnfolded);
    this.folded = count;
    if (this.current > this.#last) this.#select(this.#last);
  }

  get #last() {
    return this.cells.length - 1 - (this.isUnfolded ? 0 : this.folded);
  }

  #resize(length) {
    this.cells = Array.from({ length }, (_, position) => {
      const cell = document.createElement("span");
      cell.setAttribute("role", "option");
      cell.setAttribute("aria-describedby", "details");
      cell.dataset.position = position;
      cell.tabIndex = -1;
      return cell;
    });
    this.root.replaceChildren(...this.cells);
    this.current = Math.max(Math.min(this.current, length - 1), 0);
    if (length) this.cells[this.current].tabIndex = 0;
  }

  #visit(target) {
    const position = this.cells.indexOf(target);
    if (position < 0) return;
    this.cells[this.current].removeAttribute("aria-selected");
    this.#select(position);
    target.setAttribute("aria-selected", "true");
    this.inspect(position);
  }

  #select(position) {
    this.cells[this.current].tabIndex = -1;
    this.current = position;
    this.cells[position].tabIndex = 0;
  }

  #move(event) {
    const columns = getComputedStyle(this.root).gridTemplateColumns.split(" ").length;
    const last = this.#last;
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns,
      Home: -this.current, End: last - this.current,
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.cells[Math.min(Math.max(this.current + steps[event.key], 0), last)].focus();
  }
}

const SPOKEN = {
  blank: "nothing yet",
  noise: "noise",
  accepted: "accepted",
  settled: "settled",
  beyond: "behind the answer's end",
  kept: "kept from the draft",
  free: "written by the causal pass",
  rejected: "rejected",
};

// What would take no room is shown by a sign, and what could reorder the page around it is not shown at all.
export function visible(text) {
  return text.replace(/[ \n\t]/g, (space) => SHOWN.get(space)).replace(/[\p{Cc}\p{Cf}]/gu, "�");
}
