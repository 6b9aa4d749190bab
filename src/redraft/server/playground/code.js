// The request of an answer, for a shell and for a program.

export function asCurl(origin, request) {
  const body = JSON.stringify(request, null, 2).replaceAll("'", "'\\''");
  return `curl ${origin}/v1/chat/completions -H 'Content-Type: application/json' \\\n  -d '${body}'`;
}

const OURS = ["canvas", "grounded", "structured_outputs"]; // fields that OpenAI's client does not know

export function asPython(origin, request) {
  const given = Object.entries(request).filter(([name]) => !OURS.includes(name));
  const own = Object.fromEntries(Object.entries(request).filter(([name]) => OURS.includes(name)));
  if (Object.keys(own).length) given.push(["extra_body", own]);
  const lines = given.map(([name, value]) => `    ${name}=${literal(value)},`);
  return [
    "from openai import OpenAI  # pip install openai",
    "",
    `client = OpenAI(base_url="${origin}/v1", api_key="none")`,
    "answer = client.chat.completions.create(",
    ...lines,
    ")",
    "print(answer.choices[0].message.content)",
  ].join("\n");
}

// JSON's strings and numbers are Python's too; true, false and null are not.
function literal(value) {
  if (Array.isArray(value)) return `[${value.map(literal).join(",")}]`;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([name, held]) => `${JSON.stringify(name)}:${literal(held)}`).join(",")}}`;
}
