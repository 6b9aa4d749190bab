"""Mode "auto": the answer is the same whenever it drafts, and it drafts while that is faster."""

import random

import pytest
import torch

from redraft.diffusion.settings import SamplerSettings
from redraft.engine import EngineCore, Finished, Limits, Request
from redraft.engine.costs import DraftChoice, DraftYield, ForwardCosts, Load
from redraft.engine.modes.causal import Causal
from redraft.engine.modes.drafting import Drafting, DraftingPolicy
from tests.engine.test_verified import AUTOMATA, POLICIES, check, expected_of, requests_of, run
from tests.fakes.constraints import END
from tests.fakes.models import tiny_model


class RandomChoice(DraftChoice):
    """Changes its mind at random."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng

    def pays(self, own: DraftYield) -> bool:
        return self.rng.random() < 0.5


def test_the_answer_does_not_depend_on_when_it_drafts() -> None:
    rng = random.Random(3)
    drafted = 0
    for seed in range(8):
        eos_ids = rng.choice(((), (END,), (END,)))
        model = tiny_model(seed, eos_ids=eos_ids, max_context=rng.choice((64, 160)), sliding_window=rng.choice((1, 5)))
        core = EngineCore(model, Limits(forward_tokens=rng.choice((13, 24, 256))))
        mode = Causal(model.config, torch.device("cpu"), rng.choice(POLICIES))
        mode.choice = RandomChoice(rng)
        core._modes |= dict.fromkeys(("verified", "autoregressive", "auto"), mode)
        requests = requests_of(rng, 4, AUTOMATA if eos_ids else None, modes=("auto", "auto", "verified"))
        story = run(core, requests, rng)
        for request in requests:
            check(story[request.id], request, expected_of(model, request))
            if request.mode == "auto":
                found = story[request.id][-1].generation.verification
                drafted += 0 < found.drafted_rounds < found.rounds
    assert drafted > 6


@pytest.mark.parametrize("weights", [(3e-3, 1e-5, 1e-5, 2e-5), (1e-4, 1e-4, 1e-3, 1e-3), (5.0, 0.0, 0.01, 0.02)])
def test_costs_are_learned_from_what_was_run(weights: tuple[float, ...]) -> None:
    costs, rng = ForwardCosts(), random.Random(0)

    def seconds(load: Load) -> float:
        return sum(w * x for w, x in zip(weights, (1, load.sequences, load.rows, load.canvas_rows), strict=True))

    for i in range(300):
        count = rng.choice((1, 1, 4, 16))
        canvas = 24 * count * rng.choice((0, 1))
        load = Load(count, canvas + count * rng.choice((0, 1, 10)), canvas)
        delayed = 20 if i % 50 == 49 else rng.uniform(0.8, 1.25)
        if load.rows:
            costs.observe(load, seconds(load) * delayed)
    for load in (Load(1, 1), Load(1, 24, 24), Load(8, 8), Load(8, 192, 192), Load(16, 384, 384), Load(16, 16)):
        assert costs.seconds(load) == pytest.approx(seconds(load), rel=0.35)


def test_the_choice_follows_load_and_what_drafts_give() -> None:
    choice = DraftChoice()
    for count in (1, 2, 4, 8, 16) * 20:
        for canvas_rows in (0, 24 * count):
            load = Load(count, max(count, canvas_rows), canvas_rows)
            choice.costs.observe(load, 2e-3 + 2e-5 * load.rows + 2e-5 * canvas_rows)
    good, bad = DraftYield(20, 20, 160, 140), DraftYield(20, 60, 400, 22)
    for _ in range(100):
        choice.note(DraftYield(), DraftYield(1, 1, 8, 7))

    def pays(count: int, own: DraftYield) -> bool:
        choice.begin(count, 24, Load())
        return choice.pays(own)

    assert pays(1, good)
    assert not pays(1, bad)
    assert not pays(64, good)
    assert [pays(count, good) for count in range(1, 65)] == sorted((pays(n, good) for n in range(1, 65)), reverse=True)
    # Beside a crowd of others a canvas costs the same rows, and a forward takes long anyway.
    choice.begin(1, 24, Load(16, 16 * 64, 16 * 64))
    assert choice.pays(good)
    # What was found bad is tried again at some time.
    for _ in range(400):
        choice.note(bad, None)
    assert pays(1, bad)


class Clock:
    """Advances by what a forward costs on a machine that is given."""

    now = 0.0
    core: EngineCore

    def __call__(self) -> float:
        return self.now


def test_it_drafts_alone_and_not_in_a_crowd() -> None:
    model, clock = tiny_model(eos_ids=(), max_context=160), Clock()
    core = EngineCore(model, Limits(admitted_requests=64, admitted_tokens=20_000), clock=clock)

    class RightDrafts(Drafting):
        answers: dict[tuple[int, ...], tuple[int, ...]]

        def advanced(self, sequence, stepped, kept, head):
            canvas, _ = super().advanced(sequence, stepped, kept, head)
            if stepped is None:
                return canvas, None
            written = sequence.record.written + len(kept)
            return canvas, list(self.answers[sequence.request.prompt][written : written + 6])

    core._causal._drafting = RightDrafts(model.config, torch.device("cpu"), DraftingPolicy())
    plan = core.scheduler.plan

    def timed():
        chunks = plan()
        rows = sum(chunk.tokens for chunk in chunks)
        clock.due = 2e-3 + 1e-4 * rows
        return chunks

    core.scheduler.plan = timed
    run_chunks = core._run

    def running(chunks):
        events = run_chunks(chunks)
        clock.now += clock.due
        return events

    core._run = running
    settings = SamplerSettings(max_new_tokens=40, temperature=0, seed=1)
    prompts = [(3, 4, i) for i in range(32)]
    alone = {prompt: expected_of(model, Request(id="", prompt=prompt, settings=settings)) for prompt in prompts}
    RightDrafts.answers = {prompt: one.token_ids for prompt, one in alone.items()}

    def phase(count: int, mode: str = "auto") -> tuple[float, float]:
        """Answers so many prompts at once; returns the share of rounds over drafts, and the seconds it took."""
        start, found = clock.now, []
        for i in range(count):
            core.submit(Request(id=f"{i}", prompt=prompts[i], settings=settings, mode=mode))
        while core.held:
            found += [event.generation for event in core.step() if isinstance(event, Finished)]
        assert {one.token_ids for one in found} == {alone[prompt].token_ids for prompt in prompts[:count]}
        reports = [one.verification for one in found if one.verification is not None]
        share = sum(one.drafted_rounds for one in reports) / max(1, sum(one.rounds for one in reports))
        return share, clock.now - start

    pure = {(count, mode): phase(count, mode)[1] for count in (1, 32) for mode in ("verified", "autoregressive")}
    for _ in range(2):
        share, seconds = phase(1)
        assert share > 0.5
        assert seconds < 1.1 * min(pure[1, "verified"], pure[1, "autoregressive"])
        share, seconds = phase(32)
        assert share < 0.1
        assert seconds < 1.1 * min(pure[32, "verified"], pure[32, "autoregressive"])
