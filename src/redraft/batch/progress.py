"""How far a job is: counted row by row, and written where another process can read it."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from redraft.batch.executors.protocol import Outcome
from redraft.utils.files import write_whole


@dataclass(frozen=True)
class Prices:
    """What a million tokens of prompts, and of answers, cost."""

    prompt: float = 0.0
    answer: float = 0.0


@dataclass
class Progress:
    """Counts of a job's rows, and what this process has done since it began.

    total: all rows, the faulty ones included. before: rows that an earlier process finished. warned: rows whose answers
    have warnings. Times are seconds.
    """

    total: int
    done: int = 0
    before: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    warned: int = 0
    prices: Prices = Prices()
    tokens_before: int = 0
    started: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        self.done += 1
        if error := outcome.get("error"):
            self.errors[error["kind"]] += 1
        body = outcome.get("body")
        self.warned += isinstance(body, Mapping) and bool(body.get("warnings"))
        prompt, answer = usage_of(outcome)
        self.prompt_tokens += prompt
        self.answer_tokens += answer

    def begin(self) -> None:
        """Starts the clock: what was counted so far was done before."""
        self.before, self.tokens_before, self.started = self.done, self.answer_tokens, time.monotonic()

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    def to_json(self) -> dict[str, Any]:
        """Returns the counts, and rates of this process: None until a row is finished."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        new = self.done - self.before
        rate = new / seconds if new else None
        cost = (self.prompt_tokens * self.prices.prompt + self.answer_tokens * self.prices.answer) / 1e6
        told = {
            "rows": self.total,
            "done": self.done,
            "failed": self.failed,
            "errors": dict(self.errors.most_common()),
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "rows_per_second": rate and round(rate, 2),
            "tokens_per_second": rate and round((self.answer_tokens - self.tokens_before) / seconds, 1),
            "seconds_left": rate and round((self.total - self.done) / rate, 1),
        }
        if asdict(self.prices) != asdict(Prices()):
            told |= {
                "cost": round(cost, 4),
                "cost_of_all": round(cost / self.done * self.total, 4) if self.done else None,
            }
        return told

    def write(self, path: Path) -> None:
        write_whole(path, json.dumps(self.to_json()) + "\n")


def usage_of(outcome: Outcome) -> tuple[int, int]:
    """Returns the tokens of prompt and answer that a response reports, 0 where it does not."""
    body = outcome.get("body")
    usage = body.get("usage") if isinstance(body, Mapping) else None
    if not isinstance(usage, Mapping):
        return 0, 0

    def number(*names: str) -> int:
        found = next((usage[name] for name in names if name in usage), 0)
        return found if isinstance(found, int) else 0

    return number("prompt_tokens", "input_tokens"), number("completion_tokens", "output_tokens")
