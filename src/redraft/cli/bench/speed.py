"""`redraft bench step` and `redraft bench compare`: the time of a denoising step, alone and beside others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

import redraft
from redraft.benchmark.autoregressive import compare_autoregressive
from redraft.benchmark.compare import EngineSteps, random_prompts
from redraft.benchmark.compare import compare as compare_steps
from redraft.benchmark.load.prompts import sample_prompts
from redraft.benchmark.models import benchmark_config, load_benchmark_model
from redraft.benchmark.neighbours import measure_shared_speed
from redraft.benchmark.peers import TransformersSteps
from redraft.benchmark.roofline.ceiling import measure_step
from redraft.benchmark.steps import Step, check_step
from redraft.benchmark.timing import describe_machine
from redraft.benchmark.verified import LoadPhase, compare_verified
from redraft.cli import options
from redraft.cli.output import JsonLineOption, format_ms, report
from redraft.generation.modes import DRAFTED_MODES
from redraft.model.precision import Precision, precision_choices
from redraft.model.preparation import prepare
from redraft.model.transformer import Transformer
from redraft.utils.words import counted

Noun = tuple[str, str]
CANVASES, REQUESTS = ("canvas", "canvases"), ("request", "requests")
PEERS = ("transformers", "autoregressive")
COMPARED_MODES = ("diffusion", *DRAFTED_MODES)

RoundsOption = Annotated[int, typer.Option(help="How often everything is measured.")]


@dataclass(frozen=True)
class StepOptions:
    """The step that a benchmark measures, and how its result is printed."""

    config: str
    batch: int
    precision: str
    context: int
    as_json: bool

    def prepared(self) -> Transformer:
        return prepare(load_benchmark_model(self.config, self.precision), self.precision)

    def report(
        self, facts: dict[str, Any], *notes: str, noun: Noun, columns: Sequence[str], rows: Iterable[Sequence[str]]
    ) -> None:
        """Prints the result; `noun`, singular and plural, is what there are `batch` of."""
        names = ("config", "batch", "precision", "context")
        title = f"{counted(self.batch, *noun)} at once: {self.config}, {self.precision}"
        facts = facts | {name: getattr(self, name) for name in names}
        report(facts, *notes, title=title, columns=columns, rows=rows, as_json=self.as_json)


def _make_step_options(
    *,
    config: Annotated[
        str, typer.Option(help='"a" or "b" (synthetic weights), "bundled", a folder, or a name on the hub.')
    ] = "bundled",
    batch: Annotated[int, typer.Option(help="Canvases at once.")] = 1,
    precision: Annotated[str, typer.Option(help=f"{precision_choices()}.")] = "bf16",
    context: Annotated[int, typer.Option(help="Cached tokens before each canvas.")] = 64,
    as_json: JsonLineOption = False,
) -> StepOptions:
    # What cannot be measured is refused before weights are read.
    Precision.named(precision)
    shape = benchmark_config(config)
    check_step(batch, context, shape.canvas_length, shape.max_context)
    return StepOptions(config, batch, precision, context, as_json)


@options.receives(_make_step_options)
def step(
    chosen: StepOptions,
    *,
    rounds: RoundsOption = 20,
    neighbours: Annotated[int, typer.Option(help="Busy processes that compete for the CPUs.")] = 0,
) -> None:
    """Milliseconds of a denoising step by stage, and its share of what its matrix products reach alone.

    Step and products alternate, so that both meet the same machine. With --neighbours, the step is measured alone and
    beside busy processes instead: two of them on two CPUs leave half the speed to a fair share.
    """
    options.check_at_least(1, rounds=rounds)
    options.check_at_least(0, neighbours=neighbours)
    measured_step = Step(chosen.prepared(), chosen.batch, chosen.context)
    if neighbours:
        _beside_neighbours(chosen, measured_step, rounds, neighbours)
        return
    machine, packed = describe_machine(), measured_step.model.packed_embedding
    found = measure_step(measured_step, chosen.precision, rounds)
    whole = found.seconds["step"]
    chosen.report(
        {
            "bench": "step", "canvas_length": measured_step.length,
            "ms": {name: one.scaled(1000) for name, one in found.seconds.items()},
            "canvas_steps_per_second": round(chosen.batch / whole.median, 2), "gflop": round(found.gflop, 4),
            "gflops": found.gflops, "ceiling_gflops": found.ceiling_gflops, "share_of_ceiling": found.share,
            "packed_embedding_bytes": packed.num_bytes if packed else 0, "machine": machine,
        },
        f"{found.gflop:.2f} GFLOP: {found.gflops.median:.0f} GFLOP/s, {found.share.median:.0%} of the "
        f"{found.ceiling_gflops.median:.0f} GFLOP/s that the products alone reach",
        noun=CANVASES, columns=("stage", "ms", "share"),
        rows=[(name, format_ms(one), f"{one.median / whole.median:.0%}") for name, one in found.seconds.items()],
    )  # fmt: skip


def _beside_neighbours(chosen: StepOptions, measured: Step, rounds: int, neighbours: int) -> None:
    found = measure_shared_speed(measured.run, neighbours, rounds)
    chosen.report(
        {
            "bench": "step", "neighbours": neighbours, "ms": found.ours.scaled(1000),
            "ms_beside_neighbours": found.theirs.scaled(1000), "share_of_quiet_speed": found.ratio,
            "machine": describe_machine(),
        },
        noun=CANVASES, columns=("busy neighbours", "ms", "speed"),
        rows=[
            ("0", format_ms(found.ours), ""),
            (str(neighbours), format_ms(found.theirs), f"{found.ratio.median:.0%}"),
        ],
    )  # fmt: skip


@options.receives(_make_step_options)
def compare(
    chosen: StepOptions,
    *,
    peer: Annotated[str, typer.Option("--with", help="transformers or autoregressive.")] = "transformers",
    mode: Annotated[
        str,
        typer.Option(
            help="What is beside autoregressive decoding: diffusion (steps), verified or auto (whole answers)."
        ),
    ] = "diffusion",
    prompts: Annotated[str | None, typer.Option(help="Of whole answers: a test set, extract by default.")] = None,
    requests: Annotated[int | None, typer.Option(help="Of whole answers: prompts of the set, 32 by default.")] = None,
    changing: Annotated[
        bool,
        typer.Option("--changing", help="Of whole answers: the first and last quarter are asked for one at a time."),
    ] = False,
    rounds: RoundsOption = 7,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps of a canvas: 4 are run beside transformers; 12 are assumed.")
    ] = None,
) -> None:
    """The same weights in our engine and in a peer, alternating, and the ratio round by round.

    transformers runs in bf16, or in float32 where that is our precision. autoregressive decodes the weights token by
    token; the break-even is the number of denoising steps per canvas at which both are as fast. With --mode verified
    and auto whole answers of a model with a tokenizer are compared, which are the same.
    """
    if peer not in PEERS:
        raise ValueError(f"--with is {peer!r}, must be one of {', '.join(PEERS)}")
    options.check_at_least(1, rounds=rounds, context=chosen.context)
    if mode not in COMPARED_MODES:
        raise ValueError(f"--mode is {mode!r}, must be one of {', '.join(COMPARED_MODES)}")
    if mode in DRAFTED_MODES:
        if peer != "autoregressive" or steps is not None:
            raise ValueError(f"--mode {mode} requires --with autoregressive, and no --steps")
        options.check_at_least(4 if changing else 1, requests=requests)
        _verified(chosen, mode, rounds, prompts or "extract", requests or 32, changing)
        return
    if prompts is not None or requests is not None or changing:
        raise ValueError("--prompts, --requests and --changing require --mode verified or auto")
    if peer == "transformers":
        options.require_package("transformers", "compare")
        options.check_at_least(2, steps=steps)
        _with_transformers(chosen, rounds, steps or 4)
    else:
        options.check_at_least(1, steps=steps)
        _with_autoregressive(chosen, rounds, steps or 12)


def _with_transformers(chosen: StepOptions, rounds: int, steps: int) -> None:
    machine = describe_machine()
    # The peer gets its weights from a checkpoint that is written for it.
    model = load_benchmark_model(chosen.config, chosen.precision, unquantized=True)
    prompts = random_prompts(model.config.vocab_size, chosen.batch, chosen.context)
    peer = TransformersSteps(model, prompts, steps)
    found = compare_steps(EngineSteps(prepare(model, chosen.precision), prompts, steps), peer, rounds)
    chosen.report(
        {
            "bench": "compare", "with": "transformers", "steps": steps, "ratio": found.ratio,
            "ms": found.ours.scaled(1000), "peer_ms": found.theirs.scaled(1000), "peer": peer.facts, "machine": machine,
        },
        noun=CANVASES, columns=("program", "ms per step", "ratio"),
        rows=[
            ("redraft", format_ms(found.ours), ""),
            ("transformers", format_ms(found.theirs), f"{found.ratio.median:.2f} x"),
        ],
    )  # fmt: skip


def _with_autoregressive(chosen: StepOptions, rounds: int, steps: int) -> None:
    machine, model = describe_machine(), chosen.prepared()
    found = compare_autoregressive(model, chosen.batch, chosen.context, rounds=rounds)
    length, even = model.config.canvas_length, found.break_even
    diffusion = chosen.batch * length / (steps * found.step.median + found.commit.median)
    tokens = chosen.batch / found.token.median
    chosen.report(
        {
            "bench": "compare", "with": "autoregressive", "canvas_length": length, "steps": steps,
            "tokens_per_second": {"diffusion": round(diffusion, 1), "autoregressive": round(tokens, 1)},
            "break_even_steps": even,
            "ms": {name: getattr(found, name).scaled(1000) for name in ("step", "commit", "token")},
            "machine": machine,
        },
        f"as fast at {even.median:.1f} steps for a canvas of {length} ({even.low:.1f} to {even.high:.1f})",
        noun=REQUESTS, columns=("decoding", "ms per forward", "tokens/s"),
        rows=[
            (f"a canvas, {counted(steps, 'step')}", format_ms(found.step), f"{diffusion:.0f}"),
            ("token by token", format_ms(found.token), f"{tokens:.0f}"),
        ],
    )  # fmt: skip


def _verified(chosen: StepOptions, mode: str, rounds: int, task: str, requests: int, changing: bool) -> None:
    texts, machine = sample_prompts(task, requests), describe_machine()
    model = redraft.load(chosen.config, precision=chosen.precision)
    prompts = [model.encode(text) for text in texts]
    quarter = len(prompts) // 4 if changing else 0
    alone, crowd = (prompts[:quarter], prompts[-quarter:]), prompts[quarter : len(prompts) - quarter]
    phases = [LoadPhase(crowd, chosen.batch)]
    if changing:
        phases = [LoadPhase(alone[0], 1), *phases, LoadPhase(alone[1], 1)]
    found = compare_verified(model.transformer, phases, model.defaults, rounds=rounds, mode=mode)
    sides, best = found.tokens_per_second, found.ratio_to_best
    chosen.report(
        {
            "bench": "compare", "with": "autoregressive", "mode": mode, "prompts": task, "requests": requests,
            "at_a_time": [phase.batch for phase in phases], "ratio": found.ratio, "ratio_to_best": best,
            "tokens_per_second": sides, "equal": found.equal, "tokens": round(found.tokens, 2),
            "rounds": round(found.rounds, 2), "denoiser_passes": round(found.denoiser_passes, 2), "machine": machine,
        },
        f"{found.equal} of {found.answers} answers are equal; an answer of {found.tokens:.1f} tokens took "
        f"{found.rounds:.1f} causal and {found.denoiser_passes:.1f} denoiser passes",
        *(
            f"{phase.batch} at a time: {one.median:.2f} x as fast as the better of the two others in each round"
            for phase, one in zip(phases if best else (), best, strict=True)
        ),
        noun=REQUESTS, columns=("decoding", "tokens/s", "ratio"),
        rows=[
            (name, f"{one.median:.0f}", f"{found.ratio.median:.2f} x" if name == mode else "")
            for name, one in sides.items()
        ],
    )  # fmt: skip
