"""`redraft bench step` and `redraft bench compare`: how long a denoising step takes, alone and beside others."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.cli import options
from redraft.model.precision import Precision, precision_choices

if TYPE_CHECKING:
    from redraft.benchmark.timing import Spread

PEERS = ("transformers", "autoregressive")

ConfigOption = Annotated[
    str, typer.Option("--config", help='"a" or "b" (synthetic weights), "bundled", a folder, or a name on the hub.')
]
BatchOption = Annotated[int, typer.Option(help="Canvases at once.")]
StepPrecision = Annotated[str, typer.Option(help=f"{precision_choices()}.")]
ContextOption = Annotated[int, typer.Option(help="Cached tokens before each canvas.")]
RoundsOption = Annotated[int, typer.Option(help="How often everything is measured.")]
AsJson = Annotated[bool, typer.Option("--json", help="The JSON line alone, without the table on standard error.")]


def step(
    *,
    config: ConfigOption = "bundled",
    batch: BatchOption = 1,
    precision: StepPrecision = "bf16",
    context: ContextOption = 64,
    rounds: RoundsOption = 20,
    as_json: AsJson = False,
) -> None:
    """Milliseconds of a denoising step by stage, and its share of what its matrix products reach alone, here and now.

    Step and products take turns, so that both meet the same machine.
    """
    check_subject(config, batch, precision, context)
    options.check_at_least(1, rounds=rounds)

    from redraft.benchmark.models import subject
    from redraft.benchmark.roofline.ceiling import Ceiling, flops, products
    from redraft.benchmark.steps import STAGES, Step
    from redraft.benchmark.timing import Spread, machine, ratio
    from redraft.model import prepare

    measured = Step(prepare(subject(config, precision), precision), batch, context)
    state, packed = machine(), measured.model.packed_embedding
    shapes = products(measured.model.config, batch, context)
    ceiling = Ceiling(shapes, precision)
    measured.stages()
    taken = []
    for _ in range(rounds):
        taken.append(measured.stages())
        ceiling.measure()
    seconds = {name: Spread.of([one[name] for one in taken]) for name in (*STAGES, "step")}
    giga = flops(shapes) / 1e9
    share = ratio(ceiling.seconds(), [one["step"] for one in taken])
    reached = Spread.of([giga / one["step"] for one in taken])
    possible = Spread.of([giga / one for one in ceiling.seconds()])
    if not as_json:
        rows = [(name, ms(one), f"{one.median / seconds['step'].median:.0%}") for name, one in seconds.items()]
        show(f"A step of {batch} canvases: {config}, {precision}", ("stage", "ms", "share"), rows)
        print(
            f"{giga:.2f} GFLOP: {reached.median:.0f} GFLOP/s, {share.median:.0%} of the {possible.median:.0f} GFLOP/s "
            "that the products alone reach",
            file=sys.stderr,
        )
    print(
        json.dumps(
            {
                "bench": "step", "config": config, "batch": batch, "precision": precision, "context": context,
                "canvas_length": measured.length,
                "ms": {name: one.scaled(1000).to_json() for name, one in seconds.items()},
                "canvas_steps_per_second": round(batch / seconds["step"].median, 2), "gflop": round(giga, 4),
                "gflops": reached.to_json(), "ceiling_gflops": possible.to_json(),
                "share_of_ceiling": share.to_json(),
                "packed_embedding_bytes": packed.num_bytes if packed else 0, "machine": state,
            }
        )
    )  # fmt: skip


def compare(
    *,
    peer: Annotated[str, typer.Option("--with", help="transformers or autoregressive.")] = "transformers",
    config: ConfigOption = "bundled",
    batch: BatchOption = 1,
    precision: StepPrecision = "bf16",
    context: ContextOption = 64,
    rounds: RoundsOption = 7,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps of a canvas: 4 are run beside transformers; 12 are assumed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The same weights in our engine and in a peer, turn and turn about, and the ratio round by round.

    transformers runs in bf16, or in float32 where that is our precision. autoregressive decodes the weights token by
    token, and the break-even is the number of denoising steps for a canvas with which both ways write as fast.
    """
    if peer not in PEERS:
        raise ValueError(f"--with is {peer!r}, must be one of {', '.join(PEERS)}")
    options.check_at_least(1, rounds=rounds, context=context)
    if peer == "transformers":
        options.require_package("transformers", "compare")
    check_subject(config, batch, precision, context)
    if peer == "transformers":
        options.check_at_least(2, steps=steps)
        _with_transformers(config, batch, precision, context, rounds, steps or 4, as_json)
    else:
        options.check_at_least(1, steps=steps)
        _with_tokens(config, batch, precision, context, rounds, steps or 12, as_json)


def _with_transformers(
    config: str, batch: int, precision: str, context: int, rounds: int, steps: int, as_json: bool
) -> None:
    from redraft.benchmark.compare import EngineSteps, random_prompts
    from redraft.benchmark.compare import compare as measure
    from redraft.benchmark.models import subject
    from redraft.benchmark.peers import TransformersSteps
    from redraft.benchmark.timing import machine
    from redraft.model import prepare

    state = machine()
    # The peer gets its weights from a checkpoint that is written for it.
    model = subject(config, precision, whole=True)
    prompts = random_prompts(model.config.vocab_size, batch, context)
    peer = TransformersSteps(model, prompts, steps)
    found = measure(EngineSteps(prepare(model, precision), prompts, steps), peer, rounds)
    if not as_json:
        rows = [("redraft", ms(found.ours), ""), ("transformers", ms(found.theirs), f"{found.ratio.median:.2f} x")]
        show(f"A step of {batch} canvases: {config}, {precision}", ("program", "ms", "ratio"), rows)
    print(
        json.dumps(
            {
                "bench": "compare", "with": "transformers", "config": config, "batch": batch, "precision": precision,
                "context": context, "steps": steps, "ratio": found.ratio.to_json(),
                "ms": found.ours.scaled(1000).to_json(), "peer_ms": found.theirs.scaled(1000).to_json(),
                "peer": peer.facts, "machine": state,
            }
        )
    )  # fmt: skip


def _with_tokens(config: str, batch: int, precision: str, context: int, rounds: int, steps: int, as_json: bool) -> None:
    from redraft.benchmark.autoregressive import compare_token_by_token
    from redraft.benchmark.models import subject
    from redraft.benchmark.timing import machine
    from redraft.model import prepare

    state = machine()
    model = prepare(subject(config, precision), precision)
    found = compare_token_by_token(model, batch, context, rounds=rounds)
    length = model.config.canvas_length
    diffusion = batch * length / (steps * found.step.median + found.commit.median)
    tokens = batch / found.token.median
    if not as_json:
        rows = [
            (f"a canvas, {steps} steps", ms(found.step), f"{diffusion:.0f}"),
            ("token by token", ms(found.token), f"{tokens:.0f}"),
        ]
        show(f"{batch} requests: {config}, {precision}", ("way", "ms per forward", "tokens/s"), rows)
        even = found.break_even
        print(
            f"as fast at {even.median:.1f} steps for a canvas of {length} ({even.low:.1f} to {even.high:.1f})",
            file=sys.stderr,
        )
    print(
        json.dumps(
            {
                "bench": "compare", "with": "autoregressive", "config": config, "batch": batch,
                "precision": precision, "context": context, "canvas_length": length, "steps": steps,
                "tokens_per_second": {"diffusion": round(diffusion, 1), "autoregressive": round(tokens, 1)},
                "break_even_steps": found.break_even.to_json(),
                "ms": {
                    "step": found.step.scaled(1000).to_json(), "commit": found.commit.scaled(1000).to_json(),
                    "token": found.token.scaled(1000).to_json(),
                },
                "machine": state,
            }
        )
    )  # fmt: skip


def check_subject(config: str, batch: int, precision: str, context: int) -> None:
    """ValueError for what cannot be measured, before weights are read."""
    from redraft.benchmark.models import subject_config
    from redraft.benchmark.steps import check_step

    Precision.named(precision)
    shape = subject_config(config)
    check_step(batch, context, shape.canvas_length, shape.max_context)


def ms(seconds: "Spread") -> str:
    """Median and quartiles in milliseconds."""
    return f"{seconds.median * 1000:.2f} ({seconds.low * 1000:.2f} to {seconds.high * 1000:.2f})"


def show(title: str, columns: tuple[str, ...], rows: list[Any]) -> None:
    """A table on standard error."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console(stderr=True).print(table)
