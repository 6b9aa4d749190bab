"""An endpoint as the place of a job: good, busy, broken, silent or gone."""

import asyncio
import json
from functools import partial

import pytest

from redraft.batch.executors import endpoint
from redraft.batch.executors.endpoint import EndpointSettings, endpoint_executor
from redraft.batch.executors.limit import AdaptiveLimit
from redraft.batch.executors.protocol import ExecutorFailed
from tests.batch.test_job import make, records
from tests.fakes.batch_endpoint import batch_endpoint


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)


def answer(tmp_path, prompts, **settings):
    rows = tmp_path / "in.jsonl"
    rows.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    job = make(tmp_path / "out", rows)
    job.run(partial(endpoint_executor, EndpointSettings(**settings)))
    return job.progress, records(tmp_path / "out" / "results.jsonl")


def test_what_may_pass_is_tried_again_and_what_may_not_is_an_error(tmp_path):
    passing = ["garbage:2", "wrong", "nan", "half", "gone:2", "500:3", "503:2", "429:4", "good \ud800", "never", "slow"]
    lasting = ["garbage:99", "half:99", "500:99", "400", "never:99", "slow:99"]
    with batch_endpoint() as server:
        progress, found = answer(tmp_path, passing + lasting, url=server.url, timeout=0.5, attempts=4)
    assert [row.get("text") for row in found[: len(passing)]] == [f"re {prompt}" for prompt in passing]
    assert [row["error_kind"] for row in found[len(passing) :]] == [
        "not the protocol", "broken stream", "HTTP 500", "context_length_exceeded", "timeout", "timeout",
    ]  # fmt: skip
    assert server.asked["400"] == 1
    assert server.asked["500:99"] == 4
    assert (progress.failed, progress.prompt_tokens, progress.answer_tokens) == (6, 33, 22)
    assert found[-4]["error"] == "oops"


def test_a_job_goes_on_where_the_endpoint_is_back(tmp_path):
    with batch_endpoint(key="Bearer k") as server, pytest.raises(ExecutorFailed, match="answers 401: wrong key"):
        answer(tmp_path, ["a", "b"], url=server.url)
    with pytest.raises(ExecutorFailed, match="cannot be reached"):
        answer(tmp_path, ["a", "b"], url=server.url, attempts=2)
    with batch_endpoint(key="Bearer k") as server:
        _, found = answer(tmp_path, ["a", "b"], url=server.url, key="k")
    assert [row["text"] for row in found] == ["re a", "re b"]


def test_no_more_requests_than_the_endpoint_bears(tmp_path):
    with batch_endpoint(places=3, seconds=0.01) as server:
        _, found = answer(tmp_path, [f"row {n}" for n in range(60)], url=server.url, concurrency=32)
    assert [row["text"] for row in found] == [f"re row {n}" for n in range(60)]
    assert server.most < 32


def simulate(places, *, answers, most=64):
    """Returns the limits of an endpoint that answers `places` at a time in a second each, the others waiting."""
    now = 0.0
    limit = AdaptiveLimit(most, clock=lambda: now)
    sizes = []
    for _ in range(answers):
        now += 1 / min(places, max(1, int(limit.size)))
        limit.succeed()
        sizes.append(limit.size)
    return limit, sizes


@pytest.mark.parametrize("places", [1, 3, 10, 30])
def test_the_limit_stays_near_what_brings_answers_sooner(places):
    _, sizes = simulate(places, answers=2000)
    settled = sorted(sizes[1000:])
    assert places / 2 <= settled[len(settled) // 2] <= max(8, 2.5 * places)


def test_the_limit_reaches_its_most_and_is_halved_once_for_those_under_way():
    limit, sizes = simulate(1000, answers=500)
    assert sizes[-1] == 64

    async def refuse_many():
        async with limit.slot() as first, limit.slot() as second:
            for slot in (first, second, first):
                slot.refuse(None)

    asyncio.run(refuse_many())
    assert limit.size == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "ftp://x"}, "the endpoint is 'ftp://x', must be like"),
        ({"url": "http://x", "timeout": 0}, "timeout is 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        EndpointSettings(**settings)
