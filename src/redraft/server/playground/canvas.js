// A canvas: one cell for each token, of which one is in the tab order and arrow keys reach the others.

const CONTROL = /^<[^<>\s]{1,24}>$/; // such as <eos>
const SHOWN = new Map([[" ", "·"], ["\n", "↵"], ["\t", "⇥"]]);

export class Canvas {
  // inspect(position): a token was pointed at or focused.
  constructor(root, inspect) {
    this.root = root;
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
    tokens.forEach(({ text, state }, position) => {
      const cell = this.cells[position];
      const shown = visible(text);
      if (cell.textContent === shown && cell.dataset.state === state) return;
      cell.textContent = shown;
      cell.dataset.state = state;
      cell.className = `cell ${state}${CONTROL.test(text) ? " control" : ""}`;
      cell.setAttribute("aria-label", `${position + 1}: ${shown || "empty"}, ${SPOKEN[state]}`);
    });
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
    this.current = Math.min(this.current, length - 1);
    if (length) this.cells[this.current].tabIndex = 0;
  }

  #visit(target) {
    const position = this.cells.indexOf(target);
    if (position < 0) return;
    this.cells[this.current].tabIndex = -1;
    this.cells[this.current].removeAttribute("aria-selected");
    this.current = position;
    target.tabIndex = 0;
    target.setAttribute("aria-selected", "true");
    this.inspect(position);
  }

  #move(event) {
    const columns = getComputedStyle(this.root).gridTemplateColumns.split(" ").length;
    const last = this.cells.length - 1;
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
};

// What would take no room is shown by a sign, and what could reorder the page around it is not shown at all.
export function visible(text) {
  return text.replace(/[ \n\t]/g, (space) => SHOWN.get(space)).replace(/[\p{Cc}\p{Cf}]/gu, "�");
}
