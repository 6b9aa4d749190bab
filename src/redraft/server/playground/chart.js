// Two small charts over the steps: how many tokens are accepted (bars) and the mean entropy (line).

const WIDTH = 360;
const HEIGHT = 84;
const LEFT = 30;
const FOOT = 14;
const FEWEST_SLOTS = 12;

export class Charts {
  constructor(root) {
    this.accepted = root.querySelector("#accepted-chart");
    this.entropy = root.querySelector("#entropy-chart");
    this.acceptedNow = root.querySelector("#accepted-now");
    this.entropyNow = root.querySelector("#entropy-now");
    this.draw([], -1);
  }

  // frames: the steps to show; current: the one to mark.
  draw(frames, current) {
    const accepted = frames.map(({ draft }) => draft.accepted.reduce((sum, one) => sum + one, 0));
    const entropy = frames.map(({ draft }) => draft.mean_entropy);
    const slots = Math.max(frames.length, FEWEST_SLOTS);
    const top = { accepted: frames[0]?.draft.tokens.length ?? 1, entropy: Math.max(...entropy, 0.001) };
    const area = { slot: (WIDTH - LEFT) / slots, current, starts: startsOf(frames) };
    plot(this.accepted, accepted, top.accepted, { ...area, bars: true });
    plot(this.entropy, entropy, top.entropy, area);
    this.acceptedNow.textContent = current < 0 ? "" : `${accepted[current]} of ${top.accepted}`;
    this.entropyNow.textContent = current < 0 ? "" : entropy[current].toFixed(3);
    describe(this.accepted, "Accepted tokens by step", accepted.map(String));
    describe(this.entropy, "Mean entropy by step", entropy.map((value) => value.toFixed(2)));
  }
}

// Where each canvas but the first begins.
function startsOf(frames) {
  return frames.flatMap((frame, at) => (at && frame.canvas !== frames[at - 1].canvas ? [at] : []));
}

function plot(svg, values, top, { slot, current, starts, bars = false }) {
  const x = (at) => LEFT + at * slot;
  const y = (value) => HEIGHT - FOOT - (value / top) * (HEIGHT - FOOT - 6);
  const floor = HEIGHT - FOOT;
  const parts = [line("axis", LEFT, floor, WIDTH, floor)];
  parts.push(label(top < 10 ? top.toFixed(1) : top, LEFT - 5, 11, "end"), label("0", LEFT - 5, floor, "end"));
  parts.push(...starts.map((at) => line("start", x(at), 2, x(at), floor)));
  if (bars) {
    parts.push(...values.map((value, at) => element("rect", {
      class: at === current ? "current" : "bar",
      x: x(at) + slot * 0.15, y: y(value), width: slot * 0.7, height: floor - y(value),
      rx: Math.min(2, slot * 0.2),
    })));
  } else {
    const points = values.map((value, at) => `${x(at + 0.5)},${y(value)}`);
    parts.push(element("polyline", { points: points.join(" ") }));
    if (current >= 0) {
      parts.push(element("circle", { class: "current", cx: x(current + 0.5), cy: y(values[current]), r: 4 }));
    }
  }
  if (values.length) parts.push(label("1", x(0.5), HEIGHT - 2, "middle"));
  if (values.length > 1) parts.push(label(values.length, x(values.length - 0.5), HEIGHT - 2, "middle"));
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.replaceChildren(...parts);
}

function describe(svg, title, values) {
  svg.setAttribute("aria-label", `${title}: ${values.length ? values.join(", ") : "nothing yet"}`);
}

function line(kind, x1, y1, x2, y2) {
  return element("line", { class: kind, x1, y1, x2, y2 });
}

function label(text, x, y, anchor) {
  const made = element("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
}

function element(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}
