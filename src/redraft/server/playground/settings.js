// The form's values: into a request, into a link's fragment, and out of one that anybody may have written.

const MAX_PROMPT = 50_000;
const MAX_SCHEMA = 20_000;
const ALTERNATIVES = 5;

// The server writes a field for each sampler setting into the form; its data-attributes say where it goes and its limits.
const settingsOf = (form) => [...form.elements].filter(({ dataset }) => dataset.setting);
const isNumber = (field) => field.type === "number";

// {prompt, compare, grounded if it is asked for, the schema if the answer is to be held to it, and the settings that were given}
export function readForm(form) {
  const values = { prompt: form.elements.prompt.value, compare: form.elements.compare.checked };
  if (form.elements.hold.checked) values.schema = form.elements.schema.value;
  if (form.elements.hold.checked && form.elements.grounded.checked) values.grounded = true;
  for (const field of settingsOf(form)) {
    if (field.value !== "") values[field.name] = isNumber(field) ? Number(field.value) : field.value;
  }
  return values;
}

export function fillForm(form, values) {
  if (values.prompt !== undefined) form.elements.prompt.value = values.prompt;
  form.elements.compare.checked = Boolean(values.compare);
  form.elements.hold.checked = values.schema !== undefined;
  form.elements.grounded.checked = Boolean(values.grounded);
  if (values.schema !== undefined) form.elements.schema.value = values.schema;
  for (const field of settingsOf(form)) field.value = values[field.name] ?? "";
}

// An empty field shows the model's own value.
export function showDefaults(form, { canvas: defaults = {}, max_model_len: context }) {
  form.elements.seed.placeholder = "drawn";
  for (const name of ["max_tokens", "canvas_length"]) {
    const { dataset } = form.elements[name];
    dataset.max = Math.min(dataset.max ?? Infinity, context ?? Infinity);
  }
  for (const field of settingsOf(form)) {
    const value = defaults[field.name];
    if (value === undefined) continue;
    if (isNumber(field)) field.placeholder = value;
    else field.options[0].label = value;
  }
}

// Drawn here and not by the server, so that it is known even of an answer that was stopped.
export function drawSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

export const diffusionRequest = (model, form, values) => streamed(plainRequest(model, form, values));

// A request with its drafts as events.
export function streamed({ canvas, ...request }) {
  return {
    ...request,
    stream: true,
    stream_options: { include_usage: true },
    canvas: { ...canvas, stream_drafts: true, alternatives: ALTERNATIVES },
  };
}

// The request of the same answer as a program would send it.
export function plainRequest(model, form, values) {
  const pick = (place) => Object.fromEntries(
    settingsOf(form).filter(({ name, dataset }) => dataset.setting === place && values[name] !== undefined)
      .map(({ name }) => [name, values[name]]),
  );
  return { ...asked(model, values), ...pick("top"), canvas: { mode: "diffusion", ...pick("canvas") } };
}

// The same question in a causal mode, which the canvas's settings have no meaning for.
function causalRequest(model, values, canvas) {
  const limit = values.max_tokens === undefined ? {} : { max_tokens: values.max_tokens };
  return { ...asked(model, values), ...limit, stream: true, stream_options: { include_usage: true }, canvas };
}

const BLANK = 40; // characters that a short selection may become at least, as with `redraft edit`
const SHARE = 3 / 4; // of a canvas that may be pinned

// The request that writes characters start to end of an answer anew. before: the token ids of the text before them, all
// but the last of which are pinned: one that goes on into the selection may stand in its place.
export function rewriteRequest(model, form, values, { text, start, end }, before, length) {
  const { canvas, grounded, response_format: format, ...request } = plainRequest(model, form, values);
  const limit = Math.max(BLANK, 2 * [...text.slice(start, end)].length);
  const regex = `${escaped(text.slice(0, start))}[^\\x00-\\x1f]{0,${limit}}${escaped(text.slice(end))}`;
  const pinned = before.slice(0, -1);
  const held = pinned.length && pinned.length <= SHARE * length ? { start: pinned, pinned: true } : {};
  return { ...request, structured_outputs: { regex }, canvas: { ...canvas, ...held } };
}

const escaped = (text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&").replace(/\n/g, "\\n");

export function autoregressiveRequest(model, values) {
  return causalRequest(model, values, { mode: "autoregressive" });
}

export function verifiedRequest(model, values) {
  return causalRequest(model, values, { mode: "verified", stream_drafts: true });
}

const asked = (model, { prompt, schema, grounded }) => ({
  model: model.id,
  messages: [{ role: "user", content: prompt }],
  ...(schema === undefined ? {} : { response_format: formatOf(schema) }),
  ...(grounded ? { grounded } : {}),
});

const formatOf = (schema) => ({
  type: "json_schema",
  json_schema: { name: "answer", schema: JSON.parse(schema), strict: true },
});

// The schema of an object with these fields, each a text or null.
export function schemaOf(fields) {
  const properties = fields.map((name) => `    ${JSON.stringify(name)}: {"type": ["string", "null"]}`).join(",\n");
  const required = fields.map((name) => JSON.stringify(name)).join(", ");
  return `{\n  "type": "object",\n  "properties": {\n${properties}\n  },\n  "required": [${required}],\n` +
    '  "additionalProperties": false\n}';
}

// What is wrong with the form before it is sent: {param, message} of its first problem, or undefined.
export function firstProblem(form) {
  const { prompt, hold, schema } = form.elements;
  if (!prompt.value.trim()) return { param: "messages", message: "The prompt is empty: write what the model should do." };
  if (hold.checked && !isObject(schema.value)) {
    return { param: "response_format", message: "The schema is not a JSON object: mend it, or do not hold the answer to it." };
  }
  return settingsOf(form).map((field) => ({ param: field.name, message: problemOf(field) }))
    .find(({ message }) => message);
}

// What is wrong with a setting's field, or "".
export function problemOf(field) {
  if (!isNumber(field) || (field.value === "" && !field.validity.badInput)) return "";
  const { min, above, max } = limitsOf(field);
  const isWhole = field.step === "1";
  const number = field.value === "" ? NaN : Number(field.value);
  if (isWithin(number, field) && (!isWhole || Number.isInteger(number))) return "";
  const said = [min > -Infinity && `at least ${min}`, above > -Infinity && `above ${above}`, `at most ${max}`];
  const limits = said.slice(0, field.dataset.max ? 3 : 2).filter(Boolean).join(" and ");
  return `${field.name} must be ${isWhole ? "a whole number" : "a number"}${limits && `, ${limits}`}.`;
}

function isObject(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

export function toFragment(values) {
  const pairs = Object.entries(values).filter(([, value]) => value !== false);
  const texts = pairs.map(([name, value]) => [name, value === true ? "1" : value]);
  return new URLSearchParams(texts).toString();
}

// {values, refused}: what a link says that can be used, and the names of what can't.
export function fromFragment(form, hash) {
  const fields = new Map(settingsOf(form).map((field) => [field.name, field]));
  const values = {};
  const refused = [];
  for (const [name, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const field = fields.get(name);
    if (name === "prompt" && text.length <= MAX_PROMPT) values.prompt = text;
    else if (["compare", "grounded"].includes(name) && text === "1") values[name] = true;
    else if (name === "schema" && text.length <= MAX_SCHEMA) values.schema = text;
    else if (field && fits(text, field)) values[name] = isNumber(field) ? Number(text) : text;
    else refused.push(name.slice(0, 40));
  }
  return { values, refused };
}

function fits(text, field) {
  if (!isNumber(field)) return text !== "" && [...field.options].some(({ value }) => value === text);
  const shape = field.step === "1" ? /^\d{1,16}$/ : /^\d{1,6}(\.\d{1,12})?(e-\d{1,2})?$/;
  return shape.test(text) && isWithin(Number(text), field);
}

function limitsOf({ dataset: { min, above, max } }) {
  return {
    min: Number(min ?? -Infinity),
    above: Number(above ?? -Infinity),
    max: Math.min(max ?? Infinity, Number.MAX_SAFE_INTEGER),
  };
}

function isWithin(number, field) {
  const { min, above, max } = limitsOf(field);
  return number >= min && number > above && number <= max;
}
