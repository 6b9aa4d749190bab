"""From 200 rows of a table to a served adapter: trains it, tests it, serves it, and asks it as a client does.

Run `python examples/support-mails/to_served_adapter.py FOLDER` where redraft is installed with its extras train, eval
and serve, and openai. Everything is written into FOLDER; the training there is resumed, not repeated.
"""

import argparse
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from make_mails import make_tables
from openai import OpenAI
from task import COLUMNS, PROMPT, redraft, write_cases

NAME = "mails"
TRAINING_STEPS = 60
STEP_LIMITS = (48, 4)
"""Denoising steps that an answer may take: as many as the model is shipped with, and few."""
NEW_MAIL = "Hello, where is my parcel D4711? It was due on Monday. I need an answer today. Thanks, Mara Lindt"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=TRAINING_STEPS, help="Steps of training.")
    parser.add_argument("--tested", type=int, default=100, help="New mails that are answered before and after.")
    options = parser.parse_args()
    run = options.folder / "run"
    make_tables(options.folder)
    new_mails = write_cases(options.folder / "new_mails.csv", options.tested)

    before = test(new_mails)
    train = ["finetune", options.folder / "mails.csv", "--template", PROMPT, "--columns", ",".join(COLUMNS)]
    subprocess.run(redraft(*train, "--steps", options.steps, "--out", run), check=True)
    after = test(new_mails, "--adapter", run)

    with serve("--adapter", f"{NAME}={run}") as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none")
        messages: Any = [{"role": "user", "content": PROMPT.format(mail=NEW_MAIL)}]
        answer = client.chat.completions.create(model=NAME, messages=messages, seed=0)
        print(f"{NEW_MAIL}\n→ {answer.choices[0].message.content}")
        models = [model.id for model in client.models.list()]
    result = {"before": before, "after": after, "models": models, "answer": answer.choices[0].message.content}
    print(json.dumps(result))


def test(cases: Path, *arguments: object) -> dict[str, dict[str, float]]:
    """Returns, by the limit of steps, the share of answers right in every character, and the steps they took."""
    found = {}
    for limit in STEP_LIMITS:
        command = redraft(
            "eval", "rows", cases, "--mode", "diffusion", "--steps", limit, "--max-new-tokens", 64, "--json", *arguments
        )
        summary = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        found[f"at most {limit} steps"] = {name: summary[name] for name in ("exact", "steps_per_canvas")}
        print(f"{'after' if arguments else 'before'}, at most {limit} steps: {summary['exact']:.0%} of "
              f"{summary['examples']} new mails right, {summary['steps_per_canvas']} steps", flush=True)  # fmt: skip
    return found


@contextmanager
def serve(*arguments: object) -> Iterator[str]:
    """Serves on a free port while the block runs; gives the server's URL."""
    server = subprocess.Popen(redraft("serve", "--port", 0, *arguments), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        # "redraft: serving ... at http://127.0.0.1:PORT ...", once it answers.
        yield server.stdout.readline().split(" at ")[1].split()[0]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


if __name__ == "__main__":
    main()
