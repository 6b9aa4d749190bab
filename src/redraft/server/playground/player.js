// Showing recorded steps at a pace that a person can follow.

const FRAME_MS = 33;
const WATCHABLE_MS = 5000;
const SLOWDOWNS = [1, 2, 5, 10, 20, 50, 100, 200, 500];

export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}

// Shows a recording's frames while they arrive. pace(): at most so many a second; 0 shows whatever is newest.
// wait(): called again and again while the next frame is still to come. from: the first frame that is shown.
export async function follow(recording, { show, wait, pace, signal, from = 0 }) {
  let shown = from - 1;
  while (!signal.aborted && !(recording.ended && shown === recording.frames.length - 1)) {
    const last = recording.frames.length - 1;
    const next = pace() ? Math.min(shown + 1, last) : last;
    const isNew = next > shown;
    if (isNew) show((shown = next));
    else if (!recording.ended) wait();
    await pause(isNew && pace() ? 1000 / pace() : FRAME_MS, signal);
  }
}

// Shows everything from time 0 on, `slowdown` times slower than it was.
export async function replay(show, total, slowdown, signal) {
  const started = performance.now();
  for (;;) {
    const at = (performance.now() - started) / slowdown;
    if (signal.aborted || at >= total) return;
    show(at);
    await pause(FRAME_MS, signal);
  }
}

// How many times slower a recording of `total` ms has to be for an eye to follow it.
export function slowdownFor(total) {
  return SLOWDOWNS.find((factor) => total * factor >= WATCHABLE_MS / 2) ?? SLOWDOWNS.at(-1);
}
