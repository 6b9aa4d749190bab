"""`redraft bench cost`: what answers cost in each mode at a price per hour, and how many are right."""

import dataclasses
from typing import Annotated

import typer

import redraft
from redraft.benchmark.cost import costs_of_modes
from redraft.benchmark.timing import describe_machine
from redraft.cli import options
from redraft.cli.output import JsonLineOption, report
from redraft.evaluation.tasks import TASKS


def cost(
    *,
    price: Annotated[float, typer.Option(help="What this machine costs per hour, in the currency you like.")],
    model: options.ModelOption = "bundled",
    precision: options.PrecisionOption = "auto",
    prompts: Annotated[str, typer.Option(help=f"A test set: {', '.join(TASKS)}.")] = "extract",
    examples: Annotated[
        int, typer.Option(help="Its examples with seen wording, and as many with unseen wording.")
    ] = 32,
    concurrency: Annotated[int, typer.Option(help="Answers in progress at a time.")] = 16,
    rounds: Annotated[int, typer.Option(help="How often everything is measured; the fastest counts.")] = 3,
    as_json: JsonLineOption = False,
) -> None:
    """What a million answer tokens cost in each mode at a price per hour, with the quality of the answers.

    The modes alternate. The price of a thousand exact answers is beside it: cheap tokens may be wrong ones.
    """
    options.check_positive(price=price)
    options.check_at_least(1, examples=examples, concurrency=concurrency, rounds=rounds)
    if prompts not in TASKS:
        raise ValueError(f"--prompts is {prompts!r}, must be one of {', '.join(TASKS)}")
    task, machine = TASKS[prompts], describe_machine()
    loaded = redraft.load(model, precision=precision)
    found = costs_of_modes(
        loaded, task.cases(examples), task.score, price_per_hour=price, concurrency=concurrency, rounds=rounds
    )
    report(
        {
            "bench": "cost", "model": model, "precision": precision, "prompts": prompts, "examples": 2 * examples,
            "concurrency": concurrency, "price_per_hour": price, "modes": [dataclasses.asdict(one) for one in found],
            "machine": machine,
        },
        title=f"{price:g} an hour, {concurrency} answers at a time: {model}, {prompts}",
        columns=("mode", "tokens/s", "per million tokens", "exact", "per thousand exact answers"),
        rows=[
            (
                one.mode, f"{one.tokens_per_second:.0f}", f"{one.per_million_tokens:.4g}", f"{one.exact:.1%}",
                "" if one.per_thousand_exact is None else f"{one.per_thousand_exact:.4g}",
            )
            for one in found
        ],
        as_json=as_json,
    )  # fmt: skip
