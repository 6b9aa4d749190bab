// The request of an answer, for a shell and for a program.

export function asCurl(origin, request) {
  const body = JSON.stringify(request, null, 2).replaceAll("'", "'\\''");
  return `curl ${origin}/v1/chat/completions -H 'Content-Type: application/json' \\\n  -d '${body}'`;
}

// JSON's strings and numbers are Python's too, and there is nothing else in a request.
export function asPython(origin, { canvas, ...request }) {
  const given = Object.entries(request);
  if (canvas) given.push(["extra_body", { canvas }]);
  const lines = given.map(([name, value]) => `    ${name}=${JSON.stringify(value)},`);
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
