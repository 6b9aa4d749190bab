"""`redraft bench load`: many requests to our engine, or to a server that speaks the OpenAI protocol."""

import dataclasses
import itertools
import sys
import time
from typing import Annotated, Any

import typer

from redraft.benchmark.load.driver import LoadResult, Traffic, summarise_load
from redraft.benchmark.load.efficiency import measure_efficiency
from redraft.benchmark.load.prompts import filler_prompts, sample_prompts
from redraft.benchmark.load.runs import measure_beside_neighbours, measure_overhead, run_on_endpoint, run_on_engine
from redraft.benchmark.timing import Spread, describe_machine
from redraft.cli import options
from redraft.cli.output import JsonLineOption, describe, format_spread, format_value, report
from redraft.utils.words import counted

PROMPTS, CONCURRENCY, SECONDS, ROUNDS = "extract", 16, 4.0, 5
INTERACTIVE = 1
"""Requests at a time beside a batch, if unset."""


@options.with_model_options
def load(
    model_options: options.ModelOptions,
    invocation: typer.Context,
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
    mode: options.ModeOption = None,
    endpoint: options.EndpointOption = None,
    api_key_env: options.KeyOption = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help=f"Seconds without a byte after which a request fails; {options.ENDPOINT_TIMEOUT:.0f} if unset."
        ),
    ] = None,
    against_step: Annotated[
        bool, typer.Option("--against-step", help="The engine's canvas-steps a second over those of a bare step.")
    ] = False,
    against_server: Annotated[
        bool,
        typer.Option("--against-server", help="Tokens a second of `redraft serve` over those of the engine itself."),
    ] = False,
    neighbours: Annotated[
        int | None,
        typer.Option(help="The engine's tokens a second beside this many busy processes over those alone."),
    ] = None,
    beside_batch: Annotated[
        bool,
        typer.Option(
            "--beside-batch",
            help="Milliseconds of a server's answers while it works on a batch over those without; one request at a "
            "time if --concurrency is unset.",
        ),
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option(help=f"With --against-step: seconds for each side of a round; {SECONDS:.0f} if unset."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help=f"With any of these four: rounds; {ROUNDS} if unset.")] = None,
    as_json: JsonLineOption = False,
) -> None:
    """Throughput and percentiles under load: of our engine, or with --endpoint of a server. Failures are counted."""
    options.check_at_least(1, concurrency=concurrency, requests=requests, rounds=rounds, neighbours=neighbours)
    ratios = {
        "--against-step": against_step, "--against-server": against_server, "--neighbours": neighbours,
        "--beside-batch": beside_batch,
    }  # fmt: skip
    asked = [name for name, value in ratios.items() if value]
    against = asked[0] if asked else ""
    for message, is_wrong in (
        (f"{' and '.join(asked)} are {len(asked)} measurements", len(asked) > 1),
        (f"{against} measures our own engine, not an --endpoint", against and endpoint is not None),
        (f"{against} is a closed loop, --rate an open one", against and rate is not None),
        ("--rate is an open loop, --concurrency a closed one", rate is not None and concurrency is not None),
        ("--words generates prompts, --prompts names a test set", prompts is not None and words is not None),
        (
            "--against-step counts the steps of canvases, --mode names a way to answer",
            against_step and mode is not None,
        ),
    ):
        if is_wrong:
            raise ValueError(f"{message}; leave one of them out")
    _check_requires("--against-step", against_step, {"--seconds": seconds})
    _check_requires(f"one of {', '.join(ratios)}", bool(against), {"--rounds": rounds})
    _check_requires("--endpoint", endpoint is not None, {"--timeout": timeout, "--api-key-env": api_key_env})
    options.check_positive(rate=rate, seconds=seconds, timeout=timeout)
    if mode is not None:
        model_options = dataclasses.replace(model_options, settings={**model_options.settings_in(mode), "mode": mode})
    name = prompts or PROMPTS
    texts = sample_prompts(name, requests) if words is None else _filler(words, requests)
    traffic = Traffic(texts, concurrency or (INTERACTIVE if beside_batch else CONCURRENCY), rate)
    if against_step:
        _against_step(model_options, traffic, rounds or ROUNDS, seconds or SECONDS, as_json)
        return
    if against_server:
        _against_server(model_options, traffic, rounds or ROUNDS, as_json)
        return
    if neighbours:
        _beside_neighbours(model_options, traffic, rounds or ROUNDS, neighbours, as_json)
        return
    if beside_batch:
        _beside_batch(model_options, traffic, rounds or ROUNDS, as_json)
        return
    if endpoint is not None:
        server = model_options.endpoint(endpoint, api_key_env, timeout or options.ENDPOINT_TIMEOUT)
        result = run_on_endpoint(server, traffic)
        facts = {"target": endpoint, "model": server.model, "settings": dict(server.fields)}
    else:
        settings, model = {"seed": 0} | model_options.settings, model_options.load()
        result = run_on_engine(model, traffic, settings)
        facts = {"target": "engine", "model": model.name, "precision": model_options.precision, "settings": settings}
    loop = {"concurrency": traffic.concurrency} if rate is None else {"rate": rate}
    _report(result, facts | loop | {"prompts": name if words is None else f"{words} words"}, invocation.obj, as_json)


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


def _none_answered(requests: int) -> str:
    return "the request was not answered" if requests == 1 else f"none of {requests} requests was answered"


def _report(result: LoadResult, facts: dict[str, Any], started: float, as_json: bool) -> None:
    summary = summarise_load(result)
    if not summary["answered"]:
        kinds = "; ".join(f"{kind} ({count}): {summary['failures'][kind]}" for kind, count in summary["failed"].items())
        raise ValueError(f"{_none_answered(summary['requests'])}: {kinds}")
    seconds, tokens = time.perf_counter() - started, summary["answer_tokens"]
    summary["process"] = {
        "seconds": round(seconds, 3),
        "tokens_per_second": None if tokens is None else round(tokens / seconds, 3),
    }
    for kind, count in summary["failed"].items():
        print(f"{count} failed, {kind}: {summary['failures'][kind]}", file=sys.stderr)
    report(
        {"bench": "load", **facts, **summary, "machine": describe_machine()},
        title=f"Load on {facts['target']}", columns=("", "measured"), as_json=as_json,
        rows=[(describe(name), format_value(value)) for name, value in summary.items() if name != "failures"],
    )  # fmt: skip


def _against_step(
    model_options: options.ModelOptions, traffic: Traffic, rounds: int, seconds: float, as_json: bool
) -> None:
    if "seed" in model_options.settings:
        raise ValueError("with --against-step every request has a seed of its own; leave --seed out")
    machine, model = describe_machine(), model_options.load()
    ids = [model.encode(prompt) for prompt in traffic.prompts]
    settings = model.defaults.replace(**model_options.settings)
    found = measure_efficiency(model.transformer, ids, settings, traffic.concurrency, rounds=rounds, seconds=seconds)
    lengths = sorted(map(len, ids))
    facts = {
        "against": "step", "model": model.name, "precision": model_options.precision,
        "concurrency": traffic.concurrency, "settings": model_options.settings,
        "prompt_tokens": {"low": lengths[0], "mean": round(sum(lengths) / len(ids), 1), "high": lengths[-1]},
        "canvas_steps_per_second": {"engine": found.ours, "step": found.theirs}, "machine": machine,
    }  # fmt: skip
    _report_ratio(facts, "canvas-steps/s", {"engine": found.ours, "bare step": found.theirs}, found.ratio, as_json)


def _against_server(model_options: options.ModelOptions, traffic: Traffic, rounds: int, as_json: bool) -> None:
    options.require_package("httpx2", "load")
    options.require_package("fastapi", "serve")
    machine, model = describe_machine(), model_options.load()
    settings = {"seed": 0} | model_options.settings
    found, tokens = measure_overhead(
        model, traffic, settings, rounds=rounds, device=model_options.device, precision=model_options.precision
    )
    rates = {"engine": found.theirs, "server": found.ours}
    facts = {
        "against": "server", "model": model.name, "precision": model_options.precision,
        "concurrency": traffic.concurrency, "requests": len(traffic.prompts), "settings": settings,
        "answer_tokens": tokens, "tokens_per_second": rates, "machine": machine,
    }  # fmt: skip
    _report_ratio(facts, "answer tokens/s", rates, found.ratio, as_json)


def _beside_neighbours(
    model_options: options.ModelOptions, traffic: Traffic, rounds: int, neighbours: int, as_json: bool
) -> None:
    machine, model = describe_machine(), model_options.load()
    settings = {"seed": 0} | model_options.settings
    found = measure_beside_neighbours(model, traffic, settings, neighbours=neighbours, rounds=rounds)
    facts = {
        "neighbours": neighbours, "model": model.name, "precision": model_options.precision,
        "concurrency": traffic.concurrency, "requests": len(traffic.prompts), "settings": settings,
        "tokens_per_second": found.theirs, "tokens_per_second_beside_neighbours": found.ours, "machine": machine,
    }  # fmt: skip
    rates = {"alone": found.theirs, f"beside {counted(neighbours, 'busy process')}": found.ours}
    _report_ratio(facts, "answer tokens/s", rates, found.ratio, as_json)


def _beside_batch(model_options: options.ModelOptions, traffic: Traffic, rounds: int, as_json: bool) -> None:
    options.require_package("httpx2", "load")
    options.require_package("fastapi", "serve")
    from redraft.benchmark.load.beside_batch import measure_beside_batch
    from redraft.client.stream import request_fields

    machine, settings = describe_machine(), {"seed": 0} | model_options.settings
    where = ("--device", model_options.device, "--precision", model_options.precision)
    p95, median = measure_beside_batch(
        model_options.model, traffic, request_fields(settings), rounds=rounds, options=where
    )
    facts = {
        "bench": "load", "beside": "batch", "model": model_options.model, "precision": model_options.precision,
        "concurrency": traffic.concurrency, "requests": len(traffic.prompts), "settings": settings,
        "p95_ms": {"alone": p95.theirs, "beside_batch": p95.ours}, "ratio": p95.ratio,
        "median_ms": {"alone": median.theirs, "beside_batch": median.ours}, "median_ratio": median.ratio,
        "machine": machine,
    }  # fmt: skip
    report(
        facts, title=f"{counted(traffic.concurrency, 'request')} at a time, beside a batch: {model_options.model}",
        columns=("ms", "95th percentile", "median"), as_json=as_json,
        rows=[(name, format_spread(one, ".1f"), format_spread(other, ".1f")) for name, one, other in (
            ("alone", p95.theirs, median.theirs), ("beside a batch", p95.ours, median.ours))]
        + [("ratio", format_spread(p95.ratio, ".2f"), format_spread(median.ratio, ".2f"))],
    )  # fmt: skip


def _report_ratio(facts: dict[str, Any], unit: str, rates: dict[str, Spread], ratio: Spread, as_json: bool) -> None:
    rows = [(name, format_spread(rate, ".1f")) for name, rate in rates.items()]
    report(
        {"bench": "load", **facts, "ratio": ratio},
        title=f"{counted(facts['concurrency'], 'request')} at once: {facts['model']}", columns=("", unit),
        as_json=as_json, rows=[*rows, ("ratio", format_spread(ratio, ".1%"))],
    )  # fmt: skip
