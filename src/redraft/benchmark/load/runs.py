"""Load tests of our engine and of an endpoint.

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
from redraft.benchmark.load.driver import LoadResult, Traffic
from redraft.benchmark.load.efficiency import max_cached_tokens
from redraft.benchmark.load.targets import EndpointTarget, EngineTarget
from redraft.engine import Limits

if TYPE_CHECKING:
    from redraft.client.stream import Endpoint


def run_on_engine(model: Model, traffic: Traffic, settings: Mapping[str, Any]) -> LoadResult:
    """Sends the traffic to an engine in this process; `settings` are sampler settings of every request."""

    async def run() -> LoadResult:
        async with Engine(model, **traffic_limits(model, traffic, settings)) as engine:
            return await traffic.send(EngineTarget(engine, settings))

    return asyncio.run(run())


def run_on_endpoint(endpoint: "Endpoint", traffic: Traffic) -> LoadResult:
    """Sends the traffic to a server."""

    async def run() -> LoadResult:
        async with endpoint.connect() as connection:
            return await traffic.send(EndpointTarget(connection))

    return asyncio.run(run())


def traffic_limits(model: Model, traffic: Traffic, settings: Mapping[str, Any]) -> dict[str, int]:
    """Returns the limits of an engine that admits all requests of a closed loop at once and lets all others wait."""
    limits, usual = Engine.context_limits(model, settings), Limits()
    admitted = traffic.concurrency if traffic.rate is None else usual.admitted_requests
    longest = max(len(model.encode(prompt)) for prompt in traffic.prompts)
    cached = max_cached_tokens(longest, model.defaults.replace(**settings), model.transformer.config, admitted)
    return limits | {
        "admitted_requests": admitted,
        "admitted_tokens": max(limits["admitted_tokens"], cached),
        "queued_requests": max(usual.queued_requests, len(traffic.prompts)),
    }
