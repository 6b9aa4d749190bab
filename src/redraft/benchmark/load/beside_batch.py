"""What a running batch costs those who wait: the latency of requests beside one of `redraft serve`, and without."""

import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from redraft.benchmark.load.driver import AnsweredRequest, EndpointTarget, Traffic
from redraft.benchmark.load.prompts import filler_prompts
from redraft.benchmark.load.serving import serving
from redraft.benchmark.timing import Comparison, Spread, alternate, ratio

if TYPE_CHECKING:
    import httpx2

    from redraft.client.stream import Endpoint

BATCH_ROWS = 3000
"""More than are answered while anything is measured: the batch is cancelled then."""
ROW_WORDS = 20, 120
WAIT_SECONDS = 120.0
P95 = 95


def measure_beside_batch(
    model: str, traffic: Traffic, fields: Mapping[str, Any], *, rounds: int, options: tuple[str, ...] = ()
) -> tuple[Comparison, Comparison]:
    """Sends the traffic to a server of its own with a batch of short prompts running ("ours") and without, in turn.

    fields: of every request's body, the batch's too. options: further ones of `redraft serve`. Returns the
    milliseconds of whole answers, at the 95th percentile and in the median, round by round. Raises ValueError where a
    request is not answered, or the batch ends. Requires the extras "load" and "serve".
    """
    import httpx2

    from redraft.client.stream import Endpoint

    with (
        tempfile.TemporaryDirectory() as state,
        serving(model, "--served-model-name", "served", "--state", state, *options) as server,
        httpx2.Client(base_url=server.url, timeout=WAIT_SECONDS, trust_env=False) as client,
    ):
        endpoint = Endpoint(url=f"{server.url}/v1", model="served", fields=fields)
        input_file = _upload(client, fields)

        blocks = itertools.count()

        def quiet() -> list[float]:
            # With a beginning of its own: nothing of it was read before, with a batch or without.
            prompts = [f"({next(blocks)}) {prompt}" for prompt in traffic.prompts]
            return asyncio.run(_milliseconds(endpoint, replace(traffic, prompts=prompts)))

        def busy() -> list[float]:
            with _batch(client, input_file):
                return quiet()

        found = alternate(rounds, busy, quiet)
    return _compare(*found, share=P95), _compare(*found, share=50)


async def _milliseconds(endpoint: "Endpoint", traffic: Traffic) -> list[float]:
    async with endpoint.connect() as connection:
        result = await traffic.send(EndpointTarget(connection))
    if failed := [one for one in result.outcomes if not isinstance(one, AnsweredRequest)]:
        raise ValueError(f"a request was not answered: {failed[0]}")
    return [1000 * one.seconds for one in result.outcomes if isinstance(one, AnsweredRequest)]


def _compare(busy: list[list[float]], quiet: list[list[float]], *, share: int) -> Comparison:
    ours, theirs = ([percentile(values, share) for values in side] for side in (busy, quiet))
    return Comparison(Spread.of(ours), Spread.of(theirs), ratio(ours, theirs))


def percentile(values: list[float], share: int) -> float:
    """Returns the value that `share` percent of the values do not exceed: one of them, the nearest rank."""
    return sorted(values)[-(-len(values) * share // 100) - 1]


def _upload(client: "httpx2.Client", fields: Mapping[str, Any]) -> str:
    lines = (
        json.dumps({
            "custom_id": f"row {number}", "method": "POST", "url": "/v1/chat/completions",
            "body": {**fields, "messages": [{"role": "user", "content": prompt}]},
        })
        for number, prompt in enumerate(itertools.islice(filler_prompts(*ROW_WORDS), BATCH_ROWS))
    )  # fmt: skip
    content = "\n".join(lines).encode()
    response = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("rows.jsonl", content)})
    response.raise_for_status()
    id: str = response.json()["id"]
    return id


@contextmanager
def _batch(client: "httpx2.Client", input_file: str) -> Iterator[None]:
    """Runs a batch from when its first row is answered to the end of the block. Raises ValueError where it ends."""
    asked = {"input_file_id": input_file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    response = client.post("/v1/batches", json=asked)
    response.raise_for_status()
    url = f"/v1/batches/{response.json()['id']}"

    def wait_for(status: str, answered: int) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while (batch := client.get(url).json())["status"] != status or batch["request_counts"]["completed"] < answered:
            if batch["status"] in ("failed", "completed") or time.monotonic() > until:
                raise ValueError(f"the batch is {batch['status']}, must be {status}: {batch['errors']}")
            time.sleep(0.05)

    try:
        wait_for("in_progress", 1)
        yield
    finally:
        client.post(f"{url}/cancel", json={}).raise_for_status()
        wait_for("cancelled", 0)
