"""Load: loops send what they say when they say it, nothing that failed is lost, and the numbers are those of a hand."""

import asyncio
import itertools

import pytest

import redraft
from redraft.benchmark.load.driver import (
    AnsweredRequest,
    LoadResult,
    Traffic,
    arrivals,
    percentiles,
    summarise_load,
)
from redraft.benchmark.load.prompts import filler_prompts, sample_prompts
from redraft.benchmark.load.runs import run_on_endpoint
from redraft.benchmark.load.targets import AnswerSize, EndpointTarget, EngineTarget
from redraft.client.errors import RequestFailed
from redraft.client.stream import Endpoint
from tests.fakes.checkpoints import tiny_checkpoint
from tests.fakes.openai_server import openai_server


class Counting:
    """A target that counts who is on the way; prompts that say so fail."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self.now = self.most = 0
        self.seen: list[str] = []

    async def answer(self, prompt, on_text):
        self.now += 1
        self.most = max(self.most, self.now)
        self.seen.append(prompt)
        try:
            await asyncio.sleep(self._seconds)
            on_text()
            await asyncio.sleep(0)
            if "bad" in prompt:
                raise RequestFailed("bad prompt", f"{prompt} is bad")
            return AnswerSize(len(prompt), 2)
        finally:
            self.now -= 1


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_a_closed_loop_has_so_many_on_the_way(concurrency):
    target, prompts = Counting(), [f"prompt {i}" for i in range(10)]
    found = asyncio.run(Traffic(prompts, concurrency).send(target))
    assert sorted(target.seen) == sorted(prompts)
    assert target.most == min(concurrency, 10)
    assert len(found.outcomes) == 10


def test_an_open_loop_waits_for_nobody_and_counts_from_when_a_request_was_due():
    # All are due long before the first is answered.
    target = Counting(seconds=0.2)
    found = asyncio.run(Traffic(["p"] * 5, rate=1000.0).send(target))
    assert target.most == 5
    assert all(one.seconds >= one.first_seconds >= 0.2 for one in found.outcomes)


def test_arrivals_are_poisson_and_repeatable():
    times = list(itertools.islice(arrivals(4.0, seed=1), 4001))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert times[0] == 0
    assert sum(gaps) / len(gaps) == pytest.approx(0.25, rel=0.05)
    # Half of a Poisson process's gaps are shorter than log 2 of the mean.
    assert sum(gap < 0.25 * 0.6931 for gap in gaps) / len(gaps) == pytest.approx(0.5, abs=0.03)
    assert times == list(itertools.islice(arrivals(4.0, seed=1), 4001))
    assert times != list(itertools.islice(arrivals(4.0, seed=2), 4001))


def test_filler_prompts_have_so_many_words_and_begin_apart():
    found = list(itertools.islice(filler_prompts(5, 40), 50))
    lengths = {len(prompt.split()) for prompt in found}
    assert min(lengths) >= 5
    assert max(lengths) <= 40
    assert len(lengths) > 10
    assert len({prompt.split()[0] for prompt in found}) == 50


def test_the_numbers_of_a_run():
    outcomes = (
        AnsweredRequest(0.1, 0.4, AnswerSize(8, 5)),
        AnsweredRequest(0.2, 0.6, AnswerSize(2, 3)),
        RequestFailed("HTTP 429", "slow down"),
        RequestFailed("HTTP 429", "slow down please"),
        RequestFailed("timeout", "late"),
    )
    found = summarise_load(LoadResult(outcomes, seconds=2.0))
    assert (found["requests"], found["answered"]) == (5, 2)
    assert found["failed"] == {"HTTP 429": 2, "timeout": 1}
    assert found["failures"] == {"HTTP 429": "slow down", "timeout": "late"}
    assert (found["answer_tokens"], found["tokens_per_second"], found["requests_per_second"]) == (10, 5, 1)
    assert found["canvas_steps_per_second"] == 4
    assert found["first_canvas_ms"]["p50"] == pytest.approx(150)
    assert found["answer_ms"]["p90"] == pytest.approx(580)
    assert found["ms_per_token"]["p50"] == pytest.approx((50 + 300) / 2)


def test_what_nobody_told_is_not_made_up():
    found = summarise_load(
        LoadResult((AnsweredRequest(0.1, 0.4, AnswerSize(8)), AnsweredRequest(0.1, 0.4, AnswerSize(None))), 1.0)
    )
    assert found["answer_tokens"] is found["tokens_per_second"] is found["canvas_steps_per_second"] is None
    assert found["requests_per_second"] == 2
    nothing = summarise_load(LoadResult((RequestFailed("x", "y"),), 1.0))
    assert nothing["first_canvas_ms"] is nothing["tokens_per_second"] is None


def test_percentiles():
    assert percentiles(list(range(101))) == {"p50": 50, "p90": 90, "p99": 99}
    assert percentiles([7.0]) == {"p50": 7, "p90": 7, "p99": 7}
    assert percentiles([]) is None


def test_our_engine_answers_and_its_failures_are_counted(tmp_path):
    model = redraft.load(tiny_checkpoint(tmp_path / "m"))
    alone = model.generate("hello", seed=0)

    async def run():
        async with redraft.Engine(model) as engine:
            return await Traffic(["hello", "word " * 400, " ", "hello"], 2).send(EngineTarget(engine, {"seed": 0}))

    found = asyncio.run(run())
    answered = [one for one in found.outcomes if isinstance(one, AnsweredRequest)]
    assert [one.size for one in answered] == [
        AnswerSize(len(alone.token_ids), sum(alone.generation.steps_per_canvas))
    ] * 2
    assert all(0 < one.first_seconds <= one.seconds for one in answered)
    assert summarise_load(found)["failed"] == {"ValueError": 2}


def test_a_full_queue_is_a_failure(tmp_path):
    model = redraft.load(tiny_checkpoint(tmp_path / "m"))

    async def run():
        async with redraft.Engine(model, admitted_requests=1, queued_requests=1) as engine:
            return await Traffic(["hello"] * 12, 12).send(EngineTarget(engine, {"seed": 0}))

    found = summarise_load(asyncio.run(run()))
    assert found["answered"] + found["failed"]["queue full"] == 12


def test_whatever_a_request_raises_is_counted():
    class Broken:
        async def submit(self, prompt, **_):
            raise RuntimeError(f"the engine has stopped: {prompt}")

    found = summarise_load(asyncio.run(Traffic(["a", "b"], 1).send(EngineTarget(Broken(), {}))))
    assert found["failed"] == {"RuntimeError": 2}
    assert found["failures"] == {"RuntimeError": "the engine has stopped: a"}


def test_prompts_of_a_test_set():
    found = sample_prompts("extract", 20)
    assert len(set(found)) == 20
    assert sample_prompts("extract", 20) == found
    with pytest.raises(ValueError, match="prompts is 'jokes', must be one of extract, normalize, repair"):
        sample_prompts("jokes", 1)
    with pytest.raises(ValueError, match="requests is 501, the test set has 500 prompts"):
        sample_prompts("extract", 501)


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with openai_server() as running:
        yield running


def test_a_server_answers_and_its_failures_are_counted(server):
    async def run():
        async with Endpoint(url=server.url, model="m").connect() as connection:
            return await Traffic(["good", "busy", "thinking", "good"], 1).send(EndpointTarget(connection, {"seed": 3}))

    found = asyncio.run(run())
    answered = [one for one in found.outcomes if isinstance(one, AnsweredRequest)]
    assert [one.size for one in answered] == [AnswerSize(7)] * 3
    assert all(0 < one.first_seconds <= one.seconds for one in answered)
    summary = summarise_load(found)
    assert (summary["answered"], summary["failed"], summary["answer_tokens"]) == (3, {"HTTP 429": 1}, 21)
    assert summary["failures"] == {"HTTP 429": "too many requests"}
    assert {body["seed"] for _, _, body in server.seen} == {3}


def test_tokens_that_a_server_does_not_report_are_unknown(server):
    (found,) = run_on_endpoint(Endpoint(url=server.url, model="m"), Traffic(["no usage"])).outcomes
    assert found.size == AnswerSize(None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1), "there are no prompts"),
        ((["a"], 0), "concurrency is 0, must be at least 1"),
        ((["a"], 1, 0.0), "rate is 0.0, must be a finite number above 0"),
        ((["a"], 1, float("nan")), "rate is nan"),
    ],
)
def test_bad_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Traffic(*arguments)
    with pytest.raises(ValueError, match="prompts of 5 to 4 words"):
        next(filler_prompts(5, 4))
