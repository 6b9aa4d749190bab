"""The overhead of HTTP: answer tokens a second of a server beside those of the engine, for the same prompts."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redraft.api import Model
from redraft.async_engine import Engine
from redraft.benchmark.load.driver import LoadResult, Traffic
from redraft.benchmark.load.serving import serving
from redraft.benchmark.load.targets import EndpointTarget, EngineTarget, Target
from redraft.benchmark.timing import Spread, ratio
from redraft.client.errors import RequestFailed


@dataclass(frozen=True)
class ServerOverhead:
    """Answer tokens a second of both, the server's over the engine's round by round, and a round's answer tokens."""

    engine: Spread
    server: Spread
    ratio: Spread
    tokens: int


def measure_overhead(
    model: Model, traffic: Traffic, settings: Mapping[str, Any], *, rounds: int, device: str, precision: str
) -> ServerOverhead:
    """Starts `redraft serve` for the same checkpoint and compares it with an engine in this process.

    device, precision: those that `model` was loaded with. Raises ValueError as `compare_targets` does, and where the
    server does not start. Requires `httpx2`.
    """
    from redraft.client.stream import Endpoint, request_fields

    # As the server has them.
    limits = Engine.context_limits(model, {}) | {"admitted_requests": traffic.concurrency, "queued_requests": 128}

    async def run(url: str) -> ServerOverhead:
        endpoint = Endpoint(url=f"{url}/v1", model="served", fields=request_fields(settings))
        async with Engine(model, **limits) as engine, endpoint.connect() as connection:
            targets = EngineTarget(engine, settings), EndpointTarget(connection)
            return await compare_targets(*targets, traffic, rounds=rounds)

    with serving(
        model.name, "--served-model-name", "served", "--max-concurrent", str(traffic.concurrency),
        "--device", device, "--precision", precision,
    ) as server:  # fmt: skip
        return asyncio.run(run(server.url))


async def compare_targets(engine: Target, server: Target, traffic: Traffic, *, rounds: int) -> ServerOverhead:
    """Sends all prompts to each, alternating, after one round that warms both up.

    Each sees every prompt equally often, so a prefix cache helps both alike. Raises ValueError where a prompt is not
    answered, or where the two do not write the same number of tokens: then their work was not the same.
    """
    rates: tuple[list[float], list[float]] = [], []
    totals: set[int] = set()
    for number in range(-1, rounds):
        for target, measured in zip((engine, server), rates, strict=True):
            result = await traffic.send(target)
            tokens = _answer_tokens(result)
            totals.add(tokens)
            if number >= 0:
                measured.append(tokens / result.seconds)
    if len(totals) > 1:
        raise ValueError(f"engine and server wrote different answers to the same prompts: {sorted(totals)} tokens")
    return ServerOverhead(Spread.of(rates[0]), Spread.of(rates[1]), ratio(rates[1], rates[0]), totals.pop())


def _answer_tokens(result: LoadResult) -> int:
    tokens = 0
    for one in result.outcomes:
        if isinstance(one, RequestFailed):
            raise ValueError(f"a request was not answered: {one.kind}: {one}") from one
        if one.size.tokens is None:
            raise ValueError("the server reports no usage, so its tokens are unknown")
        tokens += one.size.tokens
    return tokens
