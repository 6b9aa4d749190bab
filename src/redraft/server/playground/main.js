// The page's life: load the model, run the form's request, show it, scrub through it, compare, share.

import { fetchModel, tokenize } from "./api.js";
import { showCard } from "./card.js";
import { Charts } from "./chart.js";
import { asCurl, asPython } from "./code.js";
import { describeToken, describeVerified, describeWritten } from "./details.js";
import { Notice } from "./notice.js";
import { follow, pause, replay, slowdownFor } from "./player.js";
import { receive } from "./receive.js";
import { Recording } from "./recording.js";
import * as settings from "./settings.js";
import { selectedPart, showInPrompt } from "./selection.js";
import { openLink, share } from "./share.js";
import { counted, diffusionView, seconds, Stage, tokensView, verifiedView } from "./stage.js";
import { showTrust } from "./trust.js";

const byId = (id) => document.getElementById(id);
const form = byId("form");
const slider = byId("step");
const charts = new Charts(byId("charts"));
const notice = new Notice(byId("notice"), form);
const diffusion = new Stage(byId("diffusion"), (position) => inspect("diffusion", position));
// The other ways of decoding, in the order in which they are asked for: how each is asked, shown and named.
const COMPARED = [
  {
    name: "autoregression", said: "token by token", request: settings.autoregressiveRequest, view: tokensView,
    describe: describeWritten,
  },
  {
    name: "verification", said: "verified", request: settings.verifiedRequest, view: verifiedView,
    describe: describeVerified,
  },
].map((way) => ({ ...way, stage: new Stage(byId(way.name), (position) => inspect(way.name, position)) }));
const NO_TOKEN = byId("details").firstElementChild;
const EXPECTED_LENGTH = 64;
const REPLAY_PACE = 4; // steps a second, where the answer itself was shown live
const MAX_PROMPT_ROWS = 12;
const CALM = matchMedia("(prefers-reduced-motion: reduce)").matches;

let model = null;
let loading = null;
// What is on the page: the recordings (`others`: of the ways compared, as they were asked for), the frame shown, and how to end what is going on.
let run = { recording: new Recording(), others: [], shown: -1, values: null, request: null, playback: null };
let inspected = null;
let selection = null; // the part of the answer that is selected: {text, start, end}
let playing = null; // the signal that pauses the answer that is played again

function load() {
  loading ??= askForModel().finally(() => {
    loading = null;
  });
  return loading;
}

async function askForModel() {
  for (;;) {
    try {
      model = await fetchModel();
      notice.clear();
      break;
    } catch (error) {
      if (!error.retryAfter) {
        byId("model").textContent = "no model";
        notice.show(error);
        return;
      }
      await notice.wait(error);
    }
  }
  showCard(model, (text) => {
    form.elements.prompt.value = text;
    growPrompt();
    showSchema();
    start();
  });
  settings.showDefaults(form, model);
  if (!form.elements.prompt.value) form.elements.prompt.value = model.card?.examples?.[0] ?? "";
  growPrompt();
  if (!form.elements.schema.value) showSchema();
  if (run.shown < 0) blank();
}

const canvasLength = () => run.values?.canvas_length ?? model?.canvas?.canvas_length ?? EXPECTED_LENGTH;

function blank() {
  diffusion.blank(canvasLength());
  for (const { name, stage } of COMPARED) {
    stage.blank(canvasLength());
    byId(name).hidden = !run.values?.compare;
  }
  byId("replay").hidden = true;
  byId("seed-line").hidden = true;
  byId("play").disabled = true;
  showCode(null);
  showWarnings([]);
  showTrust(byId("trust"), null);
  select(null);
  byId("details").replaceChildren(NO_TOKEN);
  inspected = null;
  slider.disabled = true;
  charts.draw([], -1);
}

function show(at, finished = false) {
  const { recording } = run;
  run.shown = at;
  const view = diffusionView(recording, at, finished);
  diffusion.draw(view);
  charts.draw(recording.ended && !slider.disabled ? recording.frames : recording.frames.slice(0, at + 1), at);
  slider.max = recording.frames.length;
  slider.value = at + 1;
  slider.setAttribute("aria-valuetext", view.caption);
  byId("step-text").textContent = view.caption;
  if (inspected) inspect(inspected.where, inspected.position);
}

function inspect(where, position) {
  inspected = { where, position };
  const { recording, others, shown } = run;
  const at = COMPARED.findIndex(({ name }) => name === where);
  if (where === "diffusion" && shown >= 0) {
    byId("details").replaceChildren(...describeToken(recording, recording.frames[shown], position));
  } else if (others[at]) {
    const { describe, stage } = COMPARED[at];
    byId("details").replaceChildren(...describe(others[at], stage.start + position));
  }
}

const say = (text) => {
  byId("status").textContent = text;
};

function busy(stoppable, label = "Stop") {
  if (!stoppable && document.activeElement === byId("stop")) byId("generate").focus();
  byId("stop").disabled = !stoppable;
  byId("stop").textContent = label;
}

// part: write this part of the answer that is on the page anew, not all of it.
async function start(part = null) {
  notice.clear();
  const problem = settings.firstProblem(form);
  if (problem) {
    notice.show(problem);
    return;
  }
  run.request?.abort();
  run.playback?.abort();
  if (!model) await load();
  if (!model) return;
  const values = part ? { ...run.values, seed: undefined, compare: false } : settings.readForm(form);
  const seed = values.seed ?? settings.drawSeed();
  const own = { recording: new Recording(), others: [], shown: -1, values: { ...values, seed }, part };
  own.request = new AbortController();
  own.playback = new AbortController();
  run = own;
  blank();
  busy(true);
  say("Generating…");
  byId("stages").scrollIntoView({ block: "nearest", behavior: CALM ? "auto" : "smooth" });
  await runDiffusion(own, own.values, part);
  if (run === own && values.compare && own.recording.complete) await compare(own, values);
  if (run === own) busy(false);
}

async function runDiffusion(own, values, part) {
  const playing = follow(own.recording, {
    show,
    wait: () => diffusion.tick(own.recording.elapsed),
    pace: () => Number(byId("pace").value),
    signal: own.playback.signal,
  });
  const body = part ? await requestAnew(own, part) : settings.diffusionRequest(model, form, values);
  await receive(own.recording, body, { signal: own.request.signal, notice });
  if (own.request.signal.aborted) own.playback.abort();
  else if (run === own) busy(true, "Skip to the end");
  await playing;
  if (run !== own) return;
  if (own.recording.frames.length) {
    slider.disabled = false;
    byId("play").disabled = false;
    show(own.recording.frames.length - 1, true);
  }
  byId("seed-text").textContent = `Seed ${values.seed}.`;
  byId("seed-line").hidden = false;
  showWarnings(own.recording.warnings);
  showTrust(byId("trust"), own.recording.trust, own.recording.spans, (from, to) => {
    showInPrompt(form.elements.prompt, values.prompt, from, to);
  });
  say(summary(own.recording, own.request.signal.aborted));
}

async function requestAnew(own, part) {
  // Without the pins it is slower, and no other.
  const before = await tokenize(part.text.slice(0, part.start)).catch(() => []);
  own.plain = settings.rewriteRequest(model, form, own.values, part, before, canvasLength());
  return settings.streamed(own.plain);
}

function select(part) {
  selection = part;
  byId("rewrite").disabled = !part;
}

function summary({ complete, usage, total, frames }, stopped) {
  if (stopped && !frames.length) return "Stopped before the first step.";
  if (stopped) return `Stopped after ${counted(frames.length, "step")}. What was written can be scrubbed.`;
  if (!complete) return "The answer is incomplete.";
  const tokens = usage ? `${counted(usage.completion_tokens, "token")} in ` : "";
  return `Finished: ${tokens}${counted(frames.length, "step")}, ${seconds(total)}.`;
}

// Runs the other ways one after the other, each until its answer is whole, and replays all of them.
async function compare(own, values) {
  for (const [at, { said, request, stage, view }] of COMPARED.entries()) {
    const recording = new Recording();
    own.others.push(recording);
    own.playback = new AbortController();
    busy(true);
    say(`Now the same weights ${said}…`);
    const receiving = receive(recording, request(model, values), { signal: own.request.signal, notice });
    while (run === own && !recording.ended) {
      stage.draw(view(recording, recording.elapsed, canvasLength()));
      await pause(33, own.request.signal);
    }
    await receiving;
    if (run !== own) return;
    showOther(at);
    if (!recording.complete) {
      say(own.request.signal.aborted ? "The comparison was stopped." : "The comparison is incomplete.");
      return;
    }
  }
  const times = COMPARED.map(({ said }, at) => `${said} ${seconds(own.others[at].total)}`);
  say(`By diffusion ${seconds(own.recording.total)}, ${times.join(", ")}.`);
  byId("replay").hidden = false;
  const reused = Math.max(...own.others.map((other) => other.reused)) - own.recording.reused;
  byId("reused").textContent = reused > 0 ? `The later ones found ${counted(reused, "token")} of the prompt read already.` : "";
  const [written, verified] = own.others;
  byId("same").textContent = written.text === verified.text ? "Verified drafts gave the answer of token by token." : "";
  const real = slowdown() === 1;
  byId("replay-real").hidden = real;
  byId("replay-slow").textContent = `Replay together${real ? "" : `, ${slowdown()} times slower`}`;
  await replayTogether(slowdown());
}

const isReceiving = () => !(run.others.at(-1) ?? run.recording).ended;
const isCompared = () => run.others.length === COMPARED.length && run.others.every(({ complete }) => complete);
const longest = () => Math.max(run.recording.total, ...run.others.map(({ total }) => total));
const slowdown = () => slowdownFor(longest());

// Shows one of the others as it was `at` ms after its request.
function showOther(index, at = Infinity) {
  const { stage, view } = COMPARED[index];
  stage.draw(view(run.others[index], at, canvasLength()));
}

const showOthers = (at) => run.others.forEach((_, index) => showOther(index, at));

// Ends the playback that goes on, if any, for the sake of another one or of the slider.
function takeOver() {
  run.playback.abort();
  run.playback = new AbortController();
  return run.playback.signal;
}

async function replayTogether(factor) {
  const own = run;
  const signal = takeOver();
  busy(true, "Skip to the end");
  await replay((at) => {
    const frame = own.recording.frameAt(at);
    if (frame < 0) diffusion.blank(canvasLength());
    else show(frame, at >= own.recording.total);
    diffusion.tick(Math.min(at, own.recording.total));
    showOthers(at);
  }, longest(), factor, signal);
  // Whoever has taken over shows on; aborted by the button, the end is to be shown.
  if (run !== own || own.playback.signal !== signal) return;
  show(own.recording.frames.length - 1, true);
  showOthers();
  busy(false);
}

// Shows the steps of the answer once more, from the one that is shown or, at the end, from the first.
async function play() {
  if (isCompared()) {
    await replayTogether(slowdown());
    return;
  }
  const own = run;
  const last = own.recording.frames.length - 1;
  const signal = takeOver();
  busy(false);
  playing = signal;
  byId("play").textContent = "Pause";
  await follow(own.recording, {
    show: (at) => show(at, at === last),
    pace: () => Number(byId("pace").value) || REPLAY_PACE,
    signal,
    from: own.shown < last ? own.shown : 0,
  });
  // Whoever has started it once more meanwhile goes on.
  if (playing !== signal) return;
  playing = null;
  byId("play").textContent = "Play";
}

function showWarnings(warnings) {
  byId("warnings").hidden = !warnings.length;
  byId("warnings").replaceChildren(...warnings.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

// write(origin, request): the program that is shown; null hides it.
function showCode(write) {
  const isShown = write && model;
  byId("code").hidden = !isShown;
  if (!isShown) return;
  const values = run.values ?? settings.readForm(form);
  byId("code").textContent = write(location.origin, run.plain ?? settings.plainRequest(model, form, values));
  byId("code").scrollIntoView({ block: "nearest" });
  copy(byId("code"));
}

async function copy(element) {
  const said = byId("copied");
  try {
    await navigator.clipboard.writeText(element.textContent);
    said.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(element);
    said.textContent = "Selected: copy it with Ctrl+C.";
  }
}

// The schema of the fields that the prompt asks for, where the server knows them.
function showSchema() {
  const { prompt, schema } = form.elements;
  const at = model?.card?.examples?.indexOf(prompt.value) ?? -1;
  const fields = model?.example_fields?.[at] ?? [];
  if (fields.length) schema.value = settings.schemaOf(fields);
}

// Where the style sheet cannot make the box as high as its text.
function growPrompt() {
  const { prompt } = form.elements;
  if (CSS.supports("field-sizing", "content")) return;
  prompt.rows = 2;
  while (prompt.scrollHeight > prompt.clientHeight && prompt.rows < MAX_PROMPT_ROWS) prompt.rows += 1;
}

function tellPace() {
  const pace = Number(byId("pace").value);
  const steps = pace === 1 ? "step is" : "steps are";
  const slowed = `At most ${pace} ${steps} shown a second, so that you can watch`;
  const shown = pace ? slowed : "Steps are shown as they arrive";
  byId("honest").textContent = `${shown}; every clock shows the real time, measured in this browser.`;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
form.addEventListener("change", ({ target }) => {
  if (!target.dataset.setting) return;
  const message = settings.problemOf(target);
  notice.clear();
  if (message) notice.show({ message, param: target.name }, { focus: false });
});
form.elements.hold.addEventListener("change", ({ target }) => {
  byId("schema-box").hidden = !target.checked;
});
form.elements.prompt.addEventListener("input", growPrompt);
form.elements.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start();
});
byId("stop").addEventListener("click", () => {
  (isReceiving() ? run.request : run.playback).abort();
});
slider.addEventListener("input", () => {
  const at = Number(slider.value) - 1;
  if (!isReceiving()) {
    takeOver();
    busy(false);
    showOthers();
  }
  show(at, at === run.recording.frames.length - 1);
});
byId("play").addEventListener("click", () => {
  if (playing) takeOver();
  else play();
});
document.addEventListener("selectionchange", () => {
  if (!run.recording.complete || isReceiving()) return;
  const part = selectedPart(diffusion.answer, run.recording.text);
  if (part !== undefined) select(part);
});
byId("rewrite").addEventListener("click", () => start(selection));
byId("copy").addEventListener("click", () => copy(document.querySelector("#diffusion .answer")));
byId("as-curl").addEventListener("click", () => showCode(asCurl));
byId("as-python").addEventListener("click", () => showCode(asPython));
byId("replay-slow").addEventListener("click", () => replayTogether(slowdown()));
byId("replay-real").addEventListener("click", () => replayTogether(1));
byId("keep-seed").addEventListener("click", () => {
  form.elements.seed.value = run.values.seed;
  byId("settings").open = true;
});
// A link has no place for the answer that a part was written anew in.
byId("share").addEventListener("click", () => share(form, run.part ? null : run.values));
window.addEventListener("hashchange", () => openLink(form));

byId("pace").addEventListener("change", tellPace);

if (CALM) byId("pace").value = "1";
tellPace();
openLink(form);
growPrompt();
blank();
load();
