"""Load: loops send what they say when they say it, nothing that failed is lost, and the numbers are those of a hand."""

import asyncio
import itertools
from functools import partial

import pytest

import redraft
from redraft.benchmark.load import efficiency as steady
from redraft.benchmark.load.driver import (
    Amount,
    Answered,
    EngineTarget,
    Load,
    NotAnswered,
    arrivals,
    closed_loop,
    filler_prompts,
    open_loop,
    percentiles,
    summarise_load,
)
from redraft.benchmark.load.efficiency import efficiency, steady_rate
from redraft.benchmark.steps import Step
from redraft.diffusion.settings import SamplerSettings
from redraft.engine import EngineThread, Limits
from tests.fakes.checkpoints import tiny_checkpoint
from tests.fakes.models import tiny_model


class Counting:
    """A target that counts who is on the way; prompts that say so fail."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self.now = self.most = 0
        self.seen: list[str] = []

    async def answer(self, prompt, first):
        self.now += 1
        self.most = max(self.most, self.now)
        self.seen.append(prompt)
        try:
            await asyncio.sleep(self._seconds)
            first()
            await asyncio.sleep(0)
            if "bad" in prompt:
                raise NotAnswered("bad prompt", f"{prompt} is bad")
            return Amount(len(prompt), 2)
        finally:
            self.now -= 1


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_a_closed_loop_has_so_many_on_the_way(concurrency):
    target, prompts = Counting(), [f"prompt {i}" for i in range(10)]
    found = asyncio.run(closed_loop(target, prompts, concurrency))
    assert sorted(target.seen) == sorted(prompts)
    assert target.most == min(concurrency, 10)
    assert len(found.outcomes) == 10


def test_an_open_loop_waits_for_nobody_and_counts_from_when_a_request_was_due():
    # All are due long before the first is answered.
    target = Counting(seconds=0.2)
    found = asyncio.run(open_loop(target, ["p"] * 5, rate=1000.0))
    assert target.most == 5
    assert all(one.seconds >= one.first >= 0.2 for one in found.outcomes)


def test_arrivals_are_poisson_and_repeatable():
    times = list(itertools.islice(arrivals(4.0, seed=1), 4001))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert times[0] == 0
    assert sum(gaps) / len(gaps) == pytest.approx(0.25, rel=0.05)
    # Half of a Poisson process's gaps are shorter than log 2 of the mean.
    assert sum(gap < 0.25 * 0.6931 for gap in gaps) / len(gaps) == pytest.approx(0.5, abs=0.03)
    assert times == list(itertools.islice(arrivals(4.0, seed=1), 4001))
    assert times != list(itertools.islice(arrivals(4.0, seed=2), 4001))


def test_filling_prompts_have_so_many_words_and_begin_apart():
    found = list(itertools.islice(filler_prompts(5, 40), 50))
    lengths = {len(prompt.split()) for prompt in found}
    assert min(lengths) >= 5
    assert max(lengths) <= 40
    assert len(lengths) > 10
    assert len({prompt.split()[0] for prompt in found}) == 50


def test_the_numbers_of_a_run():
    outcomes = (
        Answered(0.1, 0.4, Amount(8, 5)),
        Answered(0.2, 0.6, Amount(2, 3)),
        NotAnswered("HTTP 429", "slow down"),
        NotAnswered("HTTP 429", "slow down please"),
        NotAnswered("timeout", "late"),
    )
    found = summarise_load(Load(outcomes, seconds=2.0))
    assert (found["requests"], found["answered"]) == (5, 2)
    assert found["failed"] == {"HTTP 429": 2, "timeout": 1}
    assert found["failures"] == {"HTTP 429": "slow down", "timeout": "late"}
    assert (found["answer_tokens"], found["tokens_per_second"], found["requests_per_second"]) == (10, 5, 1)
    assert found["canvas_steps_per_second"] == 4
    assert found["first_canvas_ms"]["p50"] == pytest.approx(150)
    assert found["answer_ms"]["p90"] == pytest.approx(580)
    assert found["ms_per_token"]["p50"] == pytest.approx((50 + 300) / 2)


def test_what_nobody_told_is_not_made_up():
    found = summarise_load(Load((Answered(0.1, 0.4, Amount(8)), Answered(0.1, 0.4, Amount(None))), 1.0))
    assert found["answer_tokens"] is found["tokens_per_second"] is found["canvas_steps_per_second"] is None
    assert found["requests_per_second"] == 2
    nothing = summarise_load(Load((NotAnswered("x", "y"),), 1.0))
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
            return await closed_loop(EngineTarget(engine, {"seed": 0}), ["hello", "word " * 400, " ", "hello"], 2)

    found = asyncio.run(run())
    answered = [one for one in found.outcomes if isinstance(one, Answered)]
    assert [one.amount for one in answered] == [
        Amount(len(alone.token_ids), sum(alone.generation.steps_per_canvas))
    ] * 2
    assert all(0 < one.first <= one.seconds for one in answered)
    assert summarise_load(found)["failed"] == {"ValueError": 2}


def test_a_full_queue_is_a_failure(tmp_path):
    model = redraft.load(tiny_checkpoint(tmp_path / "m"))

    async def run():
        async with redraft.Engine(model, admitted_requests=1, queued_requests=1) as engine:
            return await closed_loop(EngineTarget(engine, {"seed": 0}), ["hello"] * 12, 12)

    found = summarise_load(asyncio.run(run()))
    assert found["answered"] + found["failed"]["queue full"] == 12


def test_whatever_a_request_raises_is_counted():
    class Broken:
        async def submit(self, prompt, **_):
            raise RuntimeError(f"the engine has stopped: {prompt}")

    found = summarise_load(asyncio.run(closed_loop(EngineTarget(Broken(), {}), ["a", "b"], 1)))
    assert found["failed"] == {"RuntimeError": 2}
    assert found["failures"] == {"RuntimeError": "the engine has stopped: a"}


def test_the_engine_beside_a_step():
    model = tiny_model(eos_ids=())
    settings = SamplerSettings(max_new_tokens=10, steps=3)
    prompts = [(3, 4, 5), (6, 7, 8, 9, 10), (11,)]
    found = efficiency(model, prompts, settings, 3, rounds=2, seconds=0.2)
    assert found.engine.median > 0
    assert (found.engine.count, found.ratio.count) == (2, 2)


def test_under_steady_load_all_requests_are_admitted(monkeypatch):
    made = []

    def loop(model, limits):
        made.append(limits)
        return EngineThread(model, limits)

    monkeypatch.setattr(steady, "Limits", partial(Limits, admitted_tokens=20, queued_requests=1))
    monkeypatch.setattr(steady, "EngineThread", loop)
    settings = SamplerSettings(max_new_tokens=10, steps=3)
    assert steady_rate(tiny_model(eos_ids=()), [(3,) * 20], settings, 5, 0.05) > 0
    assert (made[0].admitted_tokens, made[0].queued_requests) == (5 * (20 + 16), 5)
    assert steady.most_held(60, settings, tiny_model().config, 2) == 2 * 64


def test_the_step_has_the_canvases_of_the_engine(monkeypatch):
    made = []

    def step(*arguments, **more):
        made.append(Step(*arguments, **more))
        return made[0]

    monkeypatch.setattr(steady, "Step", step)
    settings = SamplerSettings(max_new_tokens=10, steps=3, canvas_length=4)
    efficiency(tiny_model(eos_ids=()), [(3, 4, 5)], settings, 2, rounds=1, seconds=0.05)
    assert made[0].run().tokens.shape == (2, 4)


def test_a_request_that_fails_under_steady_load_is_told():
    model = tiny_model()
    model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        steady_rate(model, [(3, 4)], SamplerSettings(max_new_tokens=8), 2, 0.1)
    with pytest.raises(ValueError, match="the context holds 64"):
        steady_rate(tiny_model(), [(3,) * 60], SamplerSettings(), 2, 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: closed_loop(Counting(), [], 1), "there are no prompts"),
        (lambda: closed_loop(Counting(), ["a"], 0), "concurrency is 0, must be at least 1"),
        (lambda: open_loop(Counting(), ["a"], 0.0), "rate is 0.0, must be a finite number above 0"),
        (lambda: open_loop(Counting(), ["a"], float("nan")), "rate is nan"),
    ],
)
def test_bad_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        asyncio.run(call())
    with pytest.raises(ValueError, match="prompts of 5 to 4 words"):
        next(filler_prompts(5, 4))
