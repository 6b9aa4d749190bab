"""`redraft bench load`: many requests for our engine, or for a server that speaks the OpenAI protocol."""

import asyncio
import itertools
import json
import math
import random
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.cli import endpoints, options
from redraft.cli.bench import speed as bench_speed

if TYPE_CHECKING:
    import redraft
    from redraft.benchmark.load.driver import Load, Target

PROMPTS, CONCURRENCY, SECONDS, ROUNDS = "extract", 16, 4.0, 5


@dataclass(frozen=True)
class Traffic:
    """What is sent, and when: `concurrency` requests at any time, or `rate` a second."""

    prompts: list[str]
    concurrency: int
    rate: float | None

    async def send(self, target: "Target") -> "Load":
        """Runs it to its end."""
        from redraft.benchmark.load.driver import closed_loop, open_loop

        if self.rate is not None:
            return await open_loop(target, self.prompts, self.rate)
        return await closed_loop(target, self.prompts, self.concurrency)


@options.with_model_options
def load(
    asked: options.ModelOptions,
    *,
    context: typer.Context,
    concurrency: Annotated[
        int | None, typer.Option(help=f"Closed loop: so many requests on the way at any time; else {CONCURRENCY}.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Open loop instead: so many requests a second, Poisson.")] = None,
    requests: Annotated[int, typer.Option(help="Requests in all.")] = 64,
    prompts: Annotated[
        str | None, typer.Option(help=f"extract, normalize or repair: the shipped test sets; else {PROMPTS}.")
    ] = None,
    words: Annotated[
        str | None, typer.Option(help="Filling text of so many words instead, like 20-200; a closed range.")
    ] = None,
    endpoint: endpoints.EndpointOption = None,
    api_key_env: endpoints.KeyOption = None,
    timeout: Annotated[
        float | None,
        typer.Option(help=f"Seconds without a word after which its answer failed; else {endpoints.TIMEOUT:.0f}."),
    ] = None,
    against_step: Annotated[
        bool, typer.Option("--against-step", help="The engine's canvas-steps a second over those of a bare step.")
    ] = False,
    against_server: Annotated[
        bool,
        typer.Option("--against-server", help="Tokens a second of `redraft serve` over those of the engine itself."),
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help=f"With --against-step: seconds for each side of a round; else {SECONDS:.0f}.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help=f"With either: rounds; else {ROUNDS}.")] = None,
    as_json: bench_speed.AsJson = False,
) -> None:
    """Throughput and percentiles under load: of our engine, or with --endpoint of a server. Failures are counted."""
    options.check_at_least(1, concurrency=concurrency, requests=requests, rounds=rounds)
    _check_together(concurrency, rate, endpoint, {"--against-step": against_step, "--against-server": against_server})
    _check_goes_with("--against-step", against_step, {"--seconds": seconds})
    _check_goes_with("--against-step or --against-server", against_step or against_server, {"--rounds": rounds})
    _check_goes_with("--endpoint", endpoint is not None, {"--timeout": timeout, "--api-key-env": api_key_env})
    _check_finite(rate=rate, seconds=seconds, timeout=timeout)
    if prompts is not None and words is not None:
        raise ValueError("--words writes prompts of its own, --prompts names a test set; leave one of them out")
    traffic = _traffic(prompts or PROMPTS, words, requests, concurrency or CONCURRENCY, rate)
    if endpoint is not None:
        found, facts = _endpoint(asked, endpoint, api_key_env, timeout or endpoints.TIMEOUT, traffic)
    elif against_step:
        _against_step(asked, traffic, rounds or ROUNDS, seconds or SECONDS, as_json)
        return
    elif against_server:
        _against_server(asked, traffic, rounds or ROUNDS, as_json)
        return
    else:
        found, facts = _engine(asked, traffic)
    loop = {"concurrency": traffic.concurrency} if rate is None else {"rate": rate}
    _report(found, facts | loop | {"prompts": prompts or PROMPTS if words is None else f"{words} words"},
            context.obj, as_json)  # fmt: skip


def _check_together(
    concurrency: int | None, rate: float | None, endpoint: str | None, comparing: dict[str, bool]
) -> None:
    compared = [name for name, given in comparing.items() if given]
    if len(compared) > 1:
        raise ValueError(f"{' and '.join(compared)} are two measurements; leave one of them out")
    if endpoint is not None and compared:
        raise ValueError(f"{compared[0]} measures our own engine, not an --endpoint; leave one of them out")
    if rate is not None and compared:
        raise ValueError(f"{compared[0]} is a closed loop, without --rate; give --concurrency")
    if rate is not None and concurrency is not None:
        raise ValueError("--rate is an open loop, --concurrency a closed one; leave one of them out")


def _check_goes_with(wanted: str, given: bool, values: dict[str, Any]) -> None:
    """ValueError for an option that would be passed over without `wanted`."""
    names = [name for name, value in values.items() if value is not None]
    if names and not given:
        raise ValueError(f"{' and '.join(names)} would do nothing here: that goes with {wanted}")


def _check_finite(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name} is {value}, must be a finite number above 0")


def _traffic(name: str, words: str | None, count: int, concurrency: int, rate: float | None) -> Traffic:
    return Traffic(_prompts(name, words, count), concurrency, rate)


def _prompts(name: str, words: str | None, count: int) -> list[str]:
    from redraft.benchmark.load.driver import filler_prompts
    from redraft.evaluation.tasks import TASKS

    if words is not None:
        low, dash, high = words.partition("-")
        if not (low.isdecimal() and (high.isdecimal() or not dash)):
            raise ValueError(f"--words is {words!r}, must be a number or a range like 20-200")
        return list(itertools.islice(filler_prompts(int(low), int(high or low)), count))
    if name not in TASKS:
        raise ValueError(f"--prompts is {name!r}, must be one of {', '.join(TASKS)}")
    cases = TASKS[name].cases()
    if count > len(cases):
        # Twice the same prompt would be read from the prefix cache.
        raise ValueError(f"--requests is {count}, the test set has {len(cases)} prompts; or give --words")
    return [case.prompt for case in random.Random(0).sample(cases, count)]


def _engine(asked: options.ModelOptions, traffic: Traffic) -> "tuple[Load, dict[str, Any]]":
    import redraft
    from redraft.benchmark.load.driver import EngineTarget

    settings = {"seed": 0} | asked.settings
    model = asked.load()
    limits = _limits(model, settings, traffic)

    async def run() -> "Load":
        async with redraft.Engine(model, **limits) as engine:
            return await traffic.send(EngineTarget(engine, settings))

    return asyncio.run(run()), {"target": "engine", "model": model.name, "precision": asked.precision,
                                "settings": settings}  # fmt: skip


def _limits(model: "redraft.Model", settings: dict[str, Any], traffic: Traffic) -> dict[str, int]:
    """Those of an engine that works on all requests which are on the way in a closed loop, and lets all wait."""
    from redraft.benchmark.load.efficiency import most_held
    from redraft.engine import Limits

    limits, usual = options.engine_limits(model, settings), Limits()
    admitted = traffic.concurrency if traffic.rate is None else usual.admitted_requests
    longest = max(len(model.encode(prompt)) for prompt in traffic.prompts)
    held = most_held(longest, model.defaults.replace(**settings), model.transformer.config, admitted)
    return limits | {
        "admitted_requests": admitted,
        "admitted_tokens": max(limits["admitted_tokens"], held),
        "queued_requests": max(usual.queued_requests, len(traffic.prompts)),
    }


def _endpoint(
    asked: options.ModelOptions, url: str, key_variable: str | None, timeout: float, traffic: Traffic
) -> "tuple[Load, dict[str, Any]]":
    server = endpoints.server_of(asked, url, key_variable, timeout)

    async def run() -> "Load":
        async with server.open() as target:
            return await traffic.send(target)

    return asyncio.run(run()), {"target": url, "model": server.model, "settings": server.settings}


def _report(found: "Load", facts: dict[str, Any], invocation: options.Invocation, as_json: bool) -> None:
    from redraft.benchmark.load.driver import summarise_load
    from redraft.benchmark.timing import machine

    summary = summarise_load(found)
    if not summary["answered"]:
        kinds = "; ".join(f"{kind} ({count}): {summary['failures'][kind]}" for kind, count in summary["failed"].items())
        raise ValueError(f"none of {summary['requests']} requests was answered: {kinds}")
    process = time.perf_counter() - invocation.started
    tokens = summary["answer_tokens"]
    summary["process"] = {
        "seconds": round(process, 3),
        "tokens_per_second": None if tokens is None else round(tokens / process, 3),
    }
    if not as_json:
        rows = [
            (name, f"{value:,}" if isinstance(value, int | float) else _row(value))
            for name, value in summary.items()
            if name != "failures"
        ]
        bench_speed.show(f"Load on {facts['target']}", ("", "measured"), rows)
    for kind, count in summary["failed"].items():
        print(f"{count} failed, {kind}: {summary['failures'][kind]}", file=sys.stderr)
    print(json.dumps({"bench": "load", **facts, **summary, "machine": machine()}))


def _row(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one:,}" for name, one in value.items()) or "none"
    return "unknown" if value is None else str(value)


def _against_step(asked: options.ModelOptions, traffic: Traffic, rounds: int, seconds: float, as_json: bool) -> None:
    from redraft.benchmark.load.efficiency import efficiency
    from redraft.benchmark.timing import machine

    if "seed" in asked.settings:
        raise ValueError("with --against-step every request has a seed of its own; leave --seed out")
    state = machine()
    model = asked.load()
    ids = [model.encode(prompt) for prompt in traffic.prompts]
    settings = model.defaults.replace(**asked.settings)
    found = efficiency(model.transformer, ids, settings, traffic.concurrency, rounds=rounds, seconds=seconds)
    if not as_json:
        rows = [
            ("engine", f"{found.engine.median:.1f} ({found.engine.low:.1f} to {found.engine.high:.1f})"),
            ("bare step", f"{found.step.median:.1f} ({found.step.low:.1f} to {found.step.high:.1f})"),
            ("ratio", f"{found.ratio.median:.1%} ({found.ratio.low:.1%} to {found.ratio.high:.1%})"),
        ]
        bench_speed.show(f"{traffic.concurrency} requests at once: {model.name}", ("", "canvas-steps/s"), rows)
    lengths = sorted(map(len, ids))
    print(
        json.dumps(
            {
                "bench": "load", "against": "step", "model": model.name, "precision": asked.precision,
                "concurrency": traffic.concurrency, "settings": asked.settings,
                "prompt_tokens": {"low": lengths[0], "mean": round(sum(lengths) / len(ids), 1), "high": lengths[-1]},
                "canvas_steps_per_second": {"engine": found.engine.to_json(), "step": found.step.to_json()},
                "ratio": found.ratio.to_json(), "machine": state,
            }
        )
    )  # fmt: skip


def _against_server(asked: options.ModelOptions, traffic: Traffic, rounds: int, as_json: bool) -> None:
    options.require_package("httpx2", "load")
    options.require_package("fastapi", "serve")
    import redraft
    from redraft.benchmark.load.driver import EngineTarget
    from redraft.benchmark.load.overhead import Overhead, overhead
    from redraft.benchmark.load.serving import serving
    from redraft.benchmark.timing import machine

    settings = {"seed": 0} | asked.settings
    state = machine()
    model = asked.load()
    # As the server has them.
    limits = options.engine_limits(model, {}) | {"admitted_requests": traffic.concurrency, "queued_requests": 128}

    async def run(url: str) -> Overhead:
        async with (
            redraft.Engine(model, **limits) as engine,
            endpoints.Server(url + "/v1", "served", None, _as_asked(settings), endpoints.TIMEOUT).open() as server,
        ):
            return await overhead(
                EngineTarget(engine, settings), server, traffic.prompts, traffic.concurrency, rounds=rounds
            )

    with serving(
        asked.model, "--served-model-name", "served", "--max-concurrent", str(traffic.concurrency),
        "--device", asked.device, "--precision", asked.precision,
    ) as server:  # fmt: skip
        found = asyncio.run(run(server.url))
    if not as_json:
        rows = [
            ("engine", f"{found.engine.median:.1f} ({found.engine.low:.1f} to {found.engine.high:.1f})"),
            ("server", f"{found.server.median:.1f} ({found.server.low:.1f} to {found.server.high:.1f})"),
            ("ratio", f"{found.ratio.median:.1%} ({found.ratio.low:.1%} to {found.ratio.high:.1%})"),
        ]
        bench_speed.show(f"{traffic.concurrency} streams at once: {model.name}", ("", "answer tokens/s"), rows)
    print(
        json.dumps(
            {
                "bench": "load", "against": "server", "model": model.name, "precision": asked.precision,
                "concurrency": traffic.concurrency, "requests": len(traffic.prompts), "settings": settings,
                "answer_tokens": found.tokens,
                "tokens_per_second": {"engine": found.engine.to_json(), "server": found.server.to_json()},
                "ratio": found.ratio.to_json(), "machine": state,
            }
        )
    )  # fmt: skip


def _as_asked(settings: dict[str, Any]) -> dict[str, Any]:
    """Sampler settings as our server is asked for them."""
    named = {endpoints.NAMES[name]: value for name, value in settings.items() if name in endpoints.NAMES}
    return named | {"canvas": {name: value for name, value in settings.items() if name not in endpoints.NAMES}}
