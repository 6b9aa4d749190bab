// The form's values: into a request, into a link's fragment, and out of one that anybody may have written.

const MAX_PROMPT = 50_000;
const FIELDS = {
  steps: { canvas: true, integer: true, min: 1, max: 4096 },
  entropy_bound: { canvas: true, min: 0, max: 1000 },
  t_max: { canvas: true, min: 0, max: 100 },
  t_min: { canvas: true, min: 0, max: 100 },
  canvas_length: { canvas: true, integer: true, min: 1, max: 65536 },
  temperature: { min: 0, max: 2 },
  max_tokens: { integer: true, min: 1, max: 2 ** 31 - 1 },
  seed: { integer: true, min: 0, max: Number.MAX_SAFE_INTEGER },
};
const ALTERNATIVES = 5;

// {prompt, compare, and the fields that were set, as numbers}
export function readForm(form) {
  const values = { prompt: form.elements.prompt.value, compare: form.elements.compare.checked };
  for (const name of Object.keys(FIELDS)) {
    const { value } = form.elements[name];
    if (value !== "") values[name] = Number(value);
  }
  return values;
}

export function fillForm(form, values) {
  if (values.prompt !== undefined) form.elements.prompt.value = values.prompt;
  form.elements.compare.checked = Boolean(values.compare);
  for (const name of Object.keys(FIELDS)) form.elements[name].value = values[name] ?? "";
}

export function showDefaults(form, defaults) {
  for (const name of Object.keys(FIELDS)) {
    if (defaults[name] !== undefined) form.elements[name].placeholder = defaults[name];
  }
}

// Drawn here and not by the server, so that it is known even of an answer that was stopped.
export function drawSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

export function diffusionRequest(model, values) {
  const set = Object.entries(FIELDS).filter(([name]) => values[name] !== undefined);
  const pick = (canvas) => Object.fromEntries(
    set.filter(([, field]) => Boolean(field.canvas) === canvas).map(([name]) => [name, values[name]]),
  );
  return {
    ...streamed(model, values),
    ...pick(false),
    canvas: { ...pick(true), stream_drafts: true, alternatives: ALTERNATIVES },
  };
}

export function autoregressiveRequest(model, values) {
  const limit = values.max_tokens === undefined ? {} : { max_tokens: values.max_tokens };
  return { ...streamed(model, values), ...limit, canvas: { autoregressive: true } };
}

function streamed(model, { prompt }) {
  return {
    model: model.id,
    messages: [{ role: "user", content: prompt }],
    stream: true,
    stream_options: { include_usage: true },
  };
}

export function toFragment(values) {
  const pairs = Object.entries(values).filter(([name, value]) => name !== "compare" || value);
  const texts = pairs.map(([name, value]) => [name, name === "compare" ? "1" : value]);
  return new URLSearchParams(texts).toString();
}

// {values, refused}: what of a link can be used, and the names of what can't.
export function fromFragment(hash) {
  const values = {};
  const refused = [];
  for (const [name, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    if (name === "prompt" && text.length <= MAX_PROMPT) values.prompt = text;
    else if (name === "compare" && text === "1") values.compare = true;
    else if (Object.hasOwn(FIELDS, name) && fits(text, FIELDS[name])) values[name] = Number(text);
    else refused.push(name.slice(0, 40));
  }
  return { values, refused };
}

function fits(text, { integer = false, min, max }) {
  const shape = integer ? /^\d{1,16}$/ : /^\d{1,6}(\.\d{1,12})?(e-\d{1,2})?$/;
  return shape.test(text) && Number(text) >= min && Number(text) <= max;
}
