"""Load tests of our engine, of an endpoint, and of our server beside the engine.

>>> import redraft
>>> from redraft.benchmark.load.driver import Traffic, summarise_load
>>> from redraft.benchmark.load.prompts import sample_prompts
>>> from redraft.benchmark.load.runs import run_on_engine
>>> traffic = Traffic(sample_prompts("extract", 4), concurrency=2)
>>> summarise_load(run_on_engine(redraft.load(), traffic, {"seed": 0}))["answered"]
4
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from redraft.api import Model
from redraft.async_engine import Engine
from redraft.benchmark.load.driver import EndpointTarget, EngineTarget, LoadResult, Target, Traffic
from redraft.benchmark.load.efficiency import max_cached_tokens
from redraft.benchmark.load.serving import serving
from redraft.benchmark.neighbours import measure_in_turn
from redraft.benchmark.timing import Comparison, Spread, ratio
from redraft.client.errors import RequestFailed
from redraft.engine import Limits

if TYPE_CHECKING:
    from redraft.client.stream import Endpoint


def run_on_engine(model: Model, traffic: Traffic, settings: Mapping[str, Any]) -> LoadResult:
    """Sends the traffic to an engine in this process; `settings`, of the sampler and `mode`, are every request's."""

    async def run() -> LoadResult:
        async with Engine(model, **traffic_limits(model, traffic, settings)) as engine:
            return await traffic.send(EngineTarget(engine, settings))

    return asyncio.run(run())


def run_on_endpoint(endpoint: "Endpoint", traffic: Traffic) -> LoadResult:
    async def run() -> LoadResult:
        async with endpoint.connect() as connection:
            return await traffic.send(EndpointTarget(connection))

    return asyncio.run(run())


def measure_beside_neighbours(
    model: Model, traffic: Traffic, settings: Mapping[str, Any], *, neighbours: int, rounds: int
) -> Comparison:
    """Measures answer tokens a second beside busy processes ("ours") and alone, in turn; the ratio is the speed left.

    Raises ValueError where a prompt is not answered.
    """

    def rate() -> float:
        result = run_on_engine(model, traffic, settings)
        return _answer_tokens(result) / result.seconds

    quiet, busy = measure_in_turn(rate, neighbours, rounds)
    return Comparison(Spread.of(busy), Spread.of(quiet), ratio(busy, quiet))


def traffic_limits(model: Model, traffic: Traffic, settings: Mapping[str, Any]) -> dict[str, int]:
    """Returns the limits of an engine that admits all requests of a closed loop at once and lets all others wait."""
    settings = {name: value for name, value in settings.items() if name != "mode"}
    limits, usual = Engine.context_limits(model, settings), Limits()
    admitted = traffic.concurrency if traffic.rate is None else usual.admitted_requests
    longest = max(len(model.encode(prompt)) for prompt in traffic.prompts)
    cached = max_cached_tokens(longest, model.defaults.replace(**settings), model.transformer.config, admitted)
    return limits | {
        "admitted_requests": admitted,
        "admitted_tokens": max(limits["admitted_tokens"], cached),
        "queued_requests": max(usual.queued_requests, len(traffic.prompts)),
    }


def measure_overhead(
    model: Model, traffic: Traffic, settings: Mapping[str, Any], *, rounds: int, device: str, precision: str
) -> tuple[Comparison, int]:
    """Starts `redraft serve` for the same checkpoint and compares it with an engine in this process.

    device, precision: those that `model` was loaded with. Returns what `compare_targets` does. Raises ValueError as
    that does, and where the server does not start. Requires `httpx2`.
    """
    from redraft.client.stream import Endpoint, request_fields

    # The server's own limits.
    limits = Engine.context_limits(model, {}) | {"admitted_requests": traffic.concurrency, "queued_requests": 128}

    async def run(url: str) -> tuple[Comparison, int]:
        endpoint = Endpoint(url=f"{url}/v1", model="served", fields=request_fields(settings))
        async with Engine(model, **limits) as engine, endpoint.connect() as connection:
            targets = EndpointTarget(connection), EngineTarget(engine, settings)
            return await compare_targets(*targets, traffic, rounds=rounds)

    with serving(
        model.name, "--served-model-name", "served", "--max-concurrent", str(traffic.concurrency),
        "--device", device, "--precision", precision,
    ) as server:  # fmt: skip
        return asyncio.run(run(server.url))


async def compare_targets(server: Target, engine: Target, traffic: Traffic, *, rounds: int) -> tuple[Comparison, int]:
    """Sends all prompts to each, alternating, after one round that warms both up.

    Returns answer tokens a second, the server's and the engine's, and the answer tokens of a round. Each sees every
    prompt equally often, so a prefix cache helps both alike. Raises ValueError where a prompt is not answered, or where
    the two do not write the same number of tokens: then their work was not the same.
    """
    rates: tuple[list[float], list[float]] = [], []
    totals: set[int] = set()
    for number in range(-1, rounds):
        for target, measured in zip((server, engine), rates, strict=True):
            result = await traffic.send(target)
            tokens = _answer_tokens(result)
            totals.add(tokens)
            if number >= 0:
                measured.append(tokens / result.seconds)
    if len(totals) > 1:
        raise ValueError(f"engine and server wrote different answers to the same prompts: {sorted(totals)} tokens")
    return Comparison(Spread.of(rates[0]), Spread.of(rates[1]), ratio(*rates)), totals.pop()


def _answer_tokens(result: LoadResult) -> int:
    tokens = 0
    for one in result.outcomes:
        if isinstance(one, RequestFailed):
            raise ValueError(f"a request was not answered: {one.kind}: {one}") from one
        if one.size.tokens is None:
            raise ValueError("the server reports no usage, so its tokens are unknown")
        tokens += one.size.tokens
    return tokens
