"""What a run's model answers to held-out rows: before the run and after it, and with how few denoising steps."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.diffusion.settings import SamplerSettings
from redraft.generation.loop import generate
from redraft.generation.result import Generation
from redraft.model.transformer import Transformer
from redraft.training.data.examples import Example
from redraft.training.validation import canvas_start
from redraft.utils.files import write_whole
from redraft.utils.json_files import json_bytes

LIMITS = (1, 2, 3, 4, 6, 8)
"""Denoising steps of a canvas with which answers are compared, beside as many as the sampler's settings allow."""
LIMIT_ROW = "limit"
"""The kind of the log's rows that say how many answers are right with at most so many steps."""
MAX_SHOWN = 4
SHOWN_FILE = "examples.json"
BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Texts:
    """The texts of held-out examples: their prompts, in order, and what decodes the tokens of answers."""

    prompts: Sequence[str]
    decode: Callable[[Sequence[int]], str]


def answer_all(model: Transformer, examples: Sequence[Example], sampler: SamplerSettings) -> list[Generation]:
    """Answers each example with a seed of its own, always the same."""
    return [
        generate(
            model,
            example.prompt,
            sampler.replace(seed=index, max_new_tokens=len(example.answer)),
            start=canvas_start(example),
        )
        for index, example in enumerate(examples)
    ]


def exact_by_steps(
    model: Transformer, examples: Sequence[Example], sampler: SamplerSettings
) -> Iterator[dict[str, float]]:
    """Yields, for the most steps that a canvas may take: `most_steps`, the share `exact`, and `steps_per_canvas`."""
    for limit in (*(one for one in LIMITS if one < sampler.steps), sampler.steps):
        results = answer_all(model, examples, sampler.replace(steps=limit))
        # The last token of an example's answer is the EOS, which a result leaves out.
        right = sum(
            result.finish_reason == "stop" and result.token_ids == example.answer[:-1]
            for result, example in zip(results, examples, strict=True)
        )
        steps = [count for result in results for count in result.steps_per_canvas]
        yield {"most_steps": limit, "exact": right / len(examples), "steps_per_canvas": sum(steps) / len(steps)}


def limits_table(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns the rows of a table from a run's log: most steps, and the exact share before and after distilling."""
    found = [row for row in rows if row["kind"] == LIMIT_ROW]
    stages = sorted({row["step"] for row in found})
    shares = {(row["step"], int(row["most_steps"])): f"{row['exact']:.1%}" for row in found}
    limits = sorted({limit for _, limit in shares})
    return [(f"{limit}", *(shares.get((stage, limit), "") for stage in stages)) for limit in limits]


def record_shown(
    folder: Path, when: str, texts: Texts, examples: Sequence[Example], results: Sequence[Generation]
) -> None:
    """Writes down what a run's first held-out rows were answered `when`: BEFORE or AFTER."""
    asked = [
        {"prompt": prompt, "expected": texts.decode(example.answer[:-1])}
        for prompt, example in zip(texts.prompts, examples, strict=False)
    ]
    known = read_shown(folder)
    is_same = [{name: row.get(name) for name in ("prompt", "expected")} for row in known] == asked
    rows = known if is_same else asked
    for row, result in zip(rows, results, strict=True):
        row[when] = texts.decode(result.token_ids)
    write_whole(folder / SHOWN_FILE, json_bytes({"examples": rows}))


def read_shown(folder: Path) -> list[dict[str, str]]:
    """Returns what was written down: prompt, expected answer, and the answers before and after as far as there are."""
    path = folder / SHOWN_FILE
    return list(json.loads(path.read_text(encoding="utf-8"))["examples"]) if path.exists() else []
