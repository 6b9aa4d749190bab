"""`redraft bench step` and `redraft bench compare`: the time of a denoising step, alone and beside others."""

from typing import Annotated

import typer

from redraft.benchmark.autoregressive import compare_autoregressive
from redraft.benchmark.compare import EngineSteps, random_prompts
from redraft.benchmark.compare import compare as compare_steps
from redraft.benchmark.models import benchmark_config, load_benchmark_model
from redraft.benchmark.neighbours import measure_shared_speed
from redraft.benchmark.peers import TransformersSteps
from redraft.benchmark.roofline.ceiling import measure_step
from redraft.benchmark.steps import Step, check_step
from redraft.benchmark.timing import describe_machine
from redraft.cli import options
from redraft.cli.output import JsonLineOption, format_ms, report
from redraft.model.precision import Precision, precision_choices
from redraft.model.preparation import prepare

PEERS = ("transformers", "autoregressive")

ConfigOption = Annotated[
    str, typer.Option("--config", help='"a" or "b" (synthetic weights), "bundled", a folder, or a name on the hub.')
]
BatchOption = Annotated[int, typer.Option(help="Canvases at once.")]
StepPrecision = Annotated[str, typer.Option(help=f"{precision_choices()}.")]
ContextOption = Annotated[int, typer.Option(help="Cached tokens before each canvas.")]
NeighboursOption = Annotated[int, typer.Option(help="Busy processes that compete for the CPUs.")]
RoundsOption = Annotated[int, typer.Option(help="How often everything is measured.")]


def step(
    *,
    config: ConfigOption = "bundled",
    batch: BatchOption = 1,
    precision: StepPrecision = "bf16",
    context: ContextOption = 64,
    rounds: RoundsOption = 20,
    neighbours: NeighboursOption = 0,
    as_json: JsonLineOption = False,
) -> None:
    """Milliseconds of a denoising step by stage, and its share of what its matrix products reach alone.

    Step and products alternate, so that both meet the same machine. With --neighbours, the step is measured alone and
    beside busy processes instead: two of them on two CPUs leave half the speed to a fair share.
    """
    _check(config, batch, precision, context)
    options.check_at_least(1, rounds=rounds)
    options.check_at_least(0, neighbours=neighbours)
    if neighbours:
        _beside_neighbours(config, batch, precision, context, rounds, neighbours, as_json)
        return
    measured_step = Step(prepare(load_benchmark_model(config, precision), precision), batch, context)
    machine, packed = describe_machine(), measured_step.model.packed_embedding
    found = measure_step(measured_step, precision, rounds)
    whole = found.seconds["step"]
    report(
        {
            "bench": "step", "config": config, "batch": batch, "precision": precision, "context": context,
            "canvas_length": measured_step.length,
            "ms": {name: one.scaled(1000) for name, one in found.seconds.items()},
            "canvas_steps_per_second": round(batch / whole.median, 2), "gflop": round(found.gflop, 4),
            "gflops": found.gflops, "ceiling_gflops": found.ceiling_gflops, "share_of_ceiling": found.share,
            "packed_embedding_bytes": packed.num_bytes if packed else 0, "machine": machine,
        },
        f"{found.gflop:.2f} GFLOP: {found.gflops.median:.0f} GFLOP/s, {found.share.median:.0%} of the "
        f"{found.ceiling_gflops.median:.0f} GFLOP/s that the products alone reach",
        title=f"A step of {batch} canvases: {config}, {precision}", columns=("stage", "ms", "share"),
        rows=[(name, format_ms(one), f"{one.median / whole.median:.0%}") for name, one in found.seconds.items()],
        as_json=as_json,
    )  # fmt: skip


def _beside_neighbours(
    config: str, batch: int, precision: str, context: int, rounds: int, neighbours: int, as_json: bool
) -> None:
    measured = Step(prepare(load_benchmark_model(config, precision), precision), batch, context)
    found = measure_shared_speed(measured.run, neighbours, rounds)
    report(
        {
            "bench": "step", "config": config, "batch": batch, "precision": precision, "context": context,
            "neighbours": neighbours, "ms": found.quiet.scaled(1000), "ms_beside_neighbours": found.shared.scaled(1000),
            "share_of_quiet_speed": found.share_of_quiet, "machine": describe_machine(),
        },
        title=f"A step of {batch} canvases: {config}, {precision}", columns=("busy neighbours", "ms", "speed"),
        rows=[
            ("0", format_ms(found.quiet), ""),
            (str(neighbours), format_ms(found.shared), f"{found.share_of_quiet.median:.0%}"),
        ],
        as_json=as_json,
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
    as_json: JsonLineOption = False,
) -> None:
    """The same weights in our engine and in a peer, alternating, and the ratio round by round.

    transformers runs in bf16, or in float32 where that is our precision. autoregressive decodes the weights token by
    token; the break-even is the number of denoising steps per canvas at which both are as fast.
    """
    if peer not in PEERS:
        raise ValueError(f"--with is {peer!r}, must be one of {', '.join(PEERS)}")
    options.check_at_least(1, rounds=rounds, context=context)
    if peer == "transformers":
        options.require_package("transformers", "compare")
    _check(config, batch, precision, context)
    if peer == "transformers":
        options.check_at_least(2, steps=steps)
        _with_transformers(config, batch, precision, context, rounds, steps or 4, as_json)
    else:
        options.check_at_least(1, steps=steps)
        _with_autoregressive(config, batch, precision, context, rounds, steps or 12, as_json)


def _with_transformers(
    config: str, batch: int, precision: str, context: int, rounds: int, steps: int, as_json: bool
) -> None:
    machine = describe_machine()
    # The peer gets its weights from a checkpoint that is written for it.
    model = load_benchmark_model(config, precision, unquantized=True)
    prompts = random_prompts(model.config.vocab_size, batch, context)
    peer = TransformersSteps(model, prompts, steps)
    found = compare_steps(EngineSteps(prepare(model, precision), prompts, steps), peer, rounds)
    report(
        {
            "bench": "compare", "with": "transformers", "config": config, "batch": batch, "precision": precision,
            "context": context, "steps": steps, "ratio": found.ratio, "ms": found.ours.scaled(1000),
            "peer_ms": found.theirs.scaled(1000), "peer": peer.facts, "machine": machine,
        },
        title=f"A step of {batch} canvases: {config}, {precision}", columns=("program", "ms", "ratio"),
        rows=[
            ("redraft", format_ms(found.ours), ""),
            ("transformers", format_ms(found.theirs), f"{found.ratio.median:.2f} x"),
        ],
        as_json=as_json,
    )  # fmt: skip


def _with_autoregressive(
    config: str, batch: int, precision: str, context: int, rounds: int, steps: int, as_json: bool
) -> None:
    machine = describe_machine()
    model = prepare(load_benchmark_model(config, precision), precision)
    found = compare_autoregressive(model, batch, context, rounds=rounds)
    length = model.config.canvas_length
    diffusion = batch * length / (steps * found.step.median + found.commit.median)
    tokens, even = batch / found.token.median, found.break_even
    report(
        {
            "bench": "compare", "with": "autoregressive", "config": config, "batch": batch, "precision": precision,
            "context": context, "canvas_length": length, "steps": steps,
            "tokens_per_second": {"diffusion": round(diffusion, 1), "autoregressive": round(tokens, 1)},
            "break_even_steps": even,
            "ms": {name: getattr(found, name).scaled(1000) for name in ("step", "commit", "token")},
            "machine": machine,
        },
        f"as fast at {even.median:.1f} steps for a canvas of {length} ({even.low:.1f} to {even.high:.1f})",
        title=f"{batch} requests: {config}, {precision}", columns=("decoding", "ms per forward", "tokens/s"),
        rows=[
            (f"a canvas, {steps} steps", format_ms(found.step), f"{diffusion:.0f}"),
            ("token by token", format_ms(found.token), f"{tokens:.0f}"),
        ],
        as_json=as_json,
    )  # fmt: skip


def _check(config: str, batch: int, precision: str, context: int) -> None:
    """Refuses what cannot be measured before weights are read."""
    Precision.named(precision)
    shape = benchmark_config(config)
    check_step(batch, context, shape.canvas_length, shape.max_context)
