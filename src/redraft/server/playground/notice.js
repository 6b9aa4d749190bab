// What went wrong, and which field it is about.

import { pause } from "./player.js";

export class Notice {
  constructor(root, form) {
    this.root = root;
    this.form = form;
    this.text = root.querySelector("#notice-text");
    this.countdown = root.querySelector("#countdown");
  }

  clear() {
    this.root.hidden = true;
    this.countdown.hidden = true;
    this.text.textContent = "";
    for (const field of this.form.querySelectorAll("[aria-invalid]")) {
      field.removeAttribute("aria-invalid");
      field.removeAttribute("aria-describedby");
    }
  }

  // error: {message, param}. The field that it is about is marked, and focused unless one is still writing there.
  show(error, { focus = true } = {}) {
    this.root.hidden = false;
    this.text.textContent = error.message;
    const field = this.#fieldOf(error.param);
    if (!field) return;
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", "notice-text");
    const around = field.closest("details");
    if (around) around.open = true;
    if (focus) field.focus();
  }

  // Waits as long as the server asked for, and says so.
  async wait(error, signal) {
    const why = error.status === 503 ? "The server is not ready yet" : "The server has no room just now";
    this.root.hidden = false;
    this.text.textContent = `${why}: ${error.message}. It is asked again by itself.`;
    this.countdown.hidden = false;
    for (let left = error.retryAfter; left > 0 && !signal?.aborted; left -= 1) {
      this.countdown.textContent = `Trying again in ${left} s`;
      await pause(1000, signal);
    }
    this.clear();
  }

  // A parameter may be named with its path: canvas.steps, messages[0].content.
  #fieldOf(param) {
    const names = param?.match(/[a-z_]+/g) ?? [];
    return [...this.form.elements].find(({ dataset }) => dataset.param && names.includes(dataset.param));
  }
}
