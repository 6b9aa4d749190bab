"""`redraft bench load`: many requests to our engine, or to a server that speaks the OpenAI protocol."""

import itertools
import sys
import time
from typing import Annotated, Any

import typer

from redraft.benchmark.load.driver import LoadResult, Traffic, summarise_load
from redraft.benchmark.load.efficiency import measure_efficiency
from redraft.benchmark.load.prompts import filler_prompts, sample_prompts
from redraft.benchmark.load.runs import measure_overhead, run_on_endpoint, run_on_engine
from redraft.benchmark.timing import Spread, describe_machine
from redraft.cli import options
from redraft.cli.eval import endpoints
from redraft.cli.output import JsonLineOption, format_spread, report

PROMPTS, CONCURRENCY, SECONDS, ROUNDS = "extract", 16, 4.0, 5


@options.with_model_options
def load(
    model_options: options.ModelOptions,
    context: typer.Context,
    *,
    concurrency: Annotated[
        int | None, typer.Option(help=f"Closed loop: this many requests in flight at any time; {CONCURRENCY} if unset.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Open loop instead: this many requests a second, as a Poisson process.")
    ] = None,
    requests: Annotated[int, typer.Option(help="Requests in total.")] = 64,
    prompts: Annotated[
        str | None, typer.Option(help=f"A shipped test set: extract, normalize or repair; {PROMPTS} if unset.")
    ] = None,
    words: Annotated[
        str | None, typer.Option(help="Filler text of this many words instead; an inclusive range like 20-200.")
    ] = None,
    endpoint: endpoints.EndpointOption = None,
    api_key_env: endpoints.KeyOption = None,
    timeout: Annotated[
        float | None,
        typer.Option(help=f"Seconds without a byte after which a request fails; {endpoints.TIMEOUT:.0f} if unset."),
    ] = None,
    against_step: Annotated[
        bool, typer.Option("--against-step", help="The engine's canvas-steps a second over those of a bare step.")
    ] = False,
    against_server: Annotated[
        bool,
        typer.Option("--against-server", help="Tokens a second of `redraft serve` over those of the engine itself."),
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option(help=f"With --against-step: seconds for each side of a round; {SECONDS:.0f} if unset."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help=f"With either: rounds; {ROUNDS} if unset.")] = None,
    as_json: JsonLineOption = False,
) -> None:
    """Throughput and percentiles under load: of our engine, or with --endpoint of a server. Failures are counted."""
    options.check_at_least(1, concurrency=concurrency, requests=requests, rounds=rounds)
    _check_compatible(concurrency, rate, endpoint, {"--against-step": against_step, "--against-server": against_server})
    _check_requires("--against-step", against_step, {"--seconds": seconds})
    _check_requires("--against-step or --against-server", against_step or against_server, {"--rounds": rounds})
    _check_requires("--endpoint", endpoint is not None, {"--timeout": timeout, "--api-key-env": api_key_env})
    options.check_positive(rate=rate, seconds=seconds, timeout=timeout)
    if prompts is not None and words is not None:
        raise ValueError("--words generates prompts, --prompts names a test set; leave one of them out")
    name = prompts or PROMPTS
    texts = sample_prompts(name, requests) if words is None else _filler(words, requests)
    traffic = Traffic(texts, concurrency or CONCURRENCY, rate)
    if against_step:
        _against_step(model_options, traffic, rounds or ROUNDS, seconds or SECONDS, as_json)
        return
    if against_server:
        _against_server(model_options, traffic, rounds or ROUNDS, as_json)
        return
    if endpoint is not None:
        server = endpoints.make_endpoint(model_options, endpoint, api_key_env, timeout or endpoints.TIMEOUT)
        result = run_on_endpoint(server, traffic)
        facts = {"target": endpoint, "model": server.model, "settings": dict(server.fields)}
    else:
        settings, model = {"seed": 0} | model_options.settings, model_options.load()
        result = run_on_engine(model, traffic, settings)
        facts = {"target": "engine", "model": model.name, "precision": model_options.precision, "settings": settings}
    loop = {"concurrency": traffic.concurrency} if rate is None else {"rate": rate}
    _report(result, facts | loop | {"prompts": name if words is None else f"{words} words"}, context.obj, as_json)


def _check_compatible(
    concurrency: int | None, rate: float | None, endpoint: str | None, comparisons: dict[str, bool]
) -> None:
    chosen = [name for name, is_given in comparisons.items() if is_given]
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} are two measurements; leave one of them out")
    if endpoint is not None and chosen:
        raise ValueError(f"{chosen[0]} measures our own engine, not an --endpoint; leave one of them out")
    if rate is not None and chosen:
        raise ValueError(f"{chosen[0]} is a closed loop, without --rate; give --concurrency")
    if rate is not None and concurrency is not None:
        raise ValueError("--rate is an open loop, --concurrency a closed one; leave one of them out")


def _check_requires(required: str, is_given: bool, values: dict[str, Any]) -> None:
    """Refuses an option that would be ignored without `required`."""
    names = [name for name, value in values.items() if value is not None]
    if names and not is_given:
        raise ValueError(f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} no effect without {required}")


def _filler(words: str, count: int) -> list[str]:
    low, dash, high = words.partition("-")
    if not (low.isdecimal() and (high.isdecimal() or not dash)):
        raise ValueError(f"--words is {words!r}, must be a number or a range like 20-200")
    return list(itertools.islice(filler_prompts(int(low), int(high or low)), count))


def _report(result: LoadResult, facts: dict[str, Any], invocation: options.Invocation, as_json: bool) -> None:
    summary = summarise_load(result)
    if not summary["answered"]:
        kinds = "; ".join(f"{kind} ({count}): {summary['failures'][kind]}" for kind, count in summary["failed"].items())
        raise ValueError(f"none of {summary['requests']} requests was answered: {kinds}")
    seconds, tokens = time.perf_counter() - invocation.started, summary["answer_tokens"]
    summary["process"] = {
        "seconds": round(seconds, 3),
        "tokens_per_second": None if tokens is None else round(tokens / seconds, 3),
    }
    for kind, count in summary["failed"].items():
        print(f"{count} failed, {kind}: {summary['failures'][kind]}", file=sys.stderr)
    report(
        {"bench": "load", **facts, **summary, "machine": describe_machine()},
        title=f"Load on {facts['target']}", columns=("", "measured"), as_json=as_json,
        rows=[(name, _format(value)) for name, value in summary.items() if name != "failures"],
    )  # fmt: skip


def _format(value: Any) -> str:
    if isinstance(value, int | float):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {one:,}" for name, one in value.items()) or "none"
    return "unknown" if value is None else str(value)


def _against_step(
    model_options: options.ModelOptions, traffic: Traffic, rounds: int, seconds: float, as_json: bool
) -> None:
    if "seed" in model_options.settings:
        raise ValueError("with --against-step every request has a seed of its own; leave --seed out")
    machine = describe_machine()
    model = model_options.load()
    ids = [model.encode(prompt) for prompt in traffic.prompts]
    settings = model.defaults.replace(**model_options.settings)
    found = measure_efficiency(model.transformer, ids, settings, traffic.concurrency, rounds=rounds, seconds=seconds)
    lengths = sorted(map(len, ids))
    report(
        {
            "bench": "load", "against": "step", "model": model.name, "precision": model_options.precision,
            "concurrency": traffic.concurrency, "settings": model_options.settings,
            "prompt_tokens": {"low": lengths[0], "mean": round(sum(lengths) / len(ids), 1), "high": lengths[-1]},
            "canvas_steps_per_second": {"engine": found.ours, "step": found.theirs},
            "ratio": found.ratio, "machine": machine,
        },
        title=f"{traffic.concurrency} requests at once: {model.name}", columns=("", "canvas-steps/s"),
        rows=_ratio_rows(found.ratio, {"engine": found.ours, "bare step": found.theirs}), as_json=as_json,
    )  # fmt: skip


def _against_server(model_options: options.ModelOptions, traffic: Traffic, rounds: int, as_json: bool) -> None:
    options.require_package("httpx2", "load")
    options.require_package("fastapi", "serve")
    machine = describe_machine()
    settings, model = {"seed": 0} | model_options.settings, model_options.load()
    found, tokens = measure_overhead(
        model, traffic, settings, rounds=rounds, device=model_options.device, precision=model_options.precision
    )
    rates = {"engine": found.theirs, "server": found.ours}
    report(
        {
            "bench": "load", "against": "server", "model": model.name, "precision": model_options.precision,
            "concurrency": traffic.concurrency, "requests": len(traffic.prompts), "settings": settings,
            "answer_tokens": tokens, "tokens_per_second": rates, "ratio": found.ratio, "machine": machine,
        },
        title=f"{traffic.concurrency} streams at once: {model.name}", columns=("", "answer tokens/s"),
        rows=_ratio_rows(found.ratio, rates), as_json=as_json,
    )  # fmt: skip


def _ratio_rows(ratio: Spread, rates: dict[str, Spread]) -> list[tuple[str, str]]:
    rows = [(name, format_spread(rate, ".1f")) for name, rate in rates.items()]
    return [*rows, ("ratio", format_spread(ratio, ".1%"))]
