"""Measures what a constraint adds to a denoising step of the bundled model.

Run from the root of the checkout on a machine that does nothing else: `python tools/constrained_step.py`. A free and a
held request are answered in turn, each alone in its engine: a canvas of 64 tokens behind the same prompt, float32. One
JSON line for each kind of schema.
"""

import argparse
import json
import statistics
import time
from itertools import islice
from typing import Any

import torch

import redraft
from redraft.benchmark.timing import Spread, alternate, describe_machine, ratio
from redraft.constraints.tokens import TokenAutomaton
from redraft.engine import EngineCore, Request, StepTaken

WORDS = ("the invoice of Ana Kovacs from Lisbon came on Monday 42.50 EUR and was paid late but order A-7 is open still "
         "since nobody at Northwind answered my two letters").split()  # fmt: skip


def record(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def text_of(length: int) -> str:
    """Returns a text of so many characters, of words in an order that does not repeat soon."""
    words = (WORDS[at * at * 7 % len(WORDS)] + str(at) for at in range(length))
    return " ".join(islice(words, length // 3))[:length]


TEXT = {"type": "string"}
SPAN = {"type": "string", "format": "span"}
ITEM = record({"name": TEXT, "price": {"type": "number"}})
COUNT = {"type": "integer", "minimum": 3, "maximum": 100_000}
KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "flat, three fields": (record(dict.fromkeys(("name", "date", "amount"), TEXT)), 0),
    "flat, seven fields": (record(dict.fromkeys("name date amount city email phone order".split(), TEXT)), 0),
    "nested, five items": (record({"items": {"type": "array", "maxItems": 5, "items": ITEM}}), 0),
    "an email address and numbers": (
        record({"email": {"type": "string", "format": "email"}, "count": COUNT, "amount": {"type": "number"}}), 0
    ),
    "one field grounded in 1,000 characters": (record({"name": SPAN}), 1000),
    "five fields grounded in 2,000 characters": (
        record(dict.fromkeys("name date amount city order".split(), SPAN)), 2000
    ),
}  # fmt: skip


class Steps:
    """An engine that answers one request again and again."""

    def __init__(self, model: redraft.Model, prompt: str, constraint: TokenAutomaton | None) -> None:
        self._core = EngineCore(model.transformer)
        settings = model.defaults.replace(seed=0, max_new_tokens=model.transformer.config.canvas_length)
        ids = tuple(model.read(prompt).ids)
        self._request = Request(
            id="a", prompt=ids, settings=settings, constraint=constraint, mode="diffusion", drafts=True
        )

    def seconds(self) -> float:
        """Returns the median of the seconds that a step of its canvas takes, after the one that reads the prompt."""
        self._core.submit(self._request)
        found = []
        while self._core.held:
            start = time.perf_counter()
            events = self._core.step()
            seconds = time.perf_counter() - start
            if any(isinstance(event, StepTaken) and event.step.number > 1 for event in events):
                found.append(seconds)
        return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=40, help="Answers of each kind, free and held.")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = redraft.load("bundled", precision="float32")
    print(json.dumps(describe_machine()), flush=True)
    for kind, (schema, length) in KINDS.items():
        text = text_of(length) or "This is Ana Kovacs (ana@example.org), I paid 42.50 EUR on 3 March 2024."
        prompt = f"Extract {', '.join(schema['properties'])} as JSON: {text}"
        automaton = model.hold(prompt, model.read(prompt), schema=schema).automaton
        assert automaton is not None
        held, free = alternate(
            options.rounds, Steps(model, prompt, automaton).seconds, Steps(model, prompt, None).seconds
        )
        milliseconds = {name: Spread.of(side).scaled(1000).to_json() for name, side in (("free", free), ("held", held))}
        found = {"schema": kind, "arcs": automaton.num_arcs, "milliseconds": milliseconds}
        print(json.dumps(found | {"ratio": ratio(held, free).to_json()}), flush=True)


if __name__ == "__main__":
    main()
