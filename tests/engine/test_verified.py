"""Verified drafts: whatever is drafted and whatever runs beside it, the answer is the autoregressive one."""

import random
from dataclasses import replace

import pytest
import torch

import redraft
from redraft.diffusion.settings import SamplerSettings
from redraft.engine import (
    CanvasCommitted,
    EngineCore,
    Event,
    Failed,
    Finished,
    Limits,
    Request,
    StepTaken,
    TokensScored,
)
from redraft.engine.modes.verified import DraftingPolicy, Verified
from redraft.engine.sequence import DecodingOutcome
from redraft.evaluation.tasks import TASKS
from redraft.generation.autoregressive import generate_autoregressive
from redraft.generation.result import Generation
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.model.precision import Precision
from redraft.model.preparation import prepare
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout
from redraft.model.transformer import Transformer
from tests.fakes.models import broken_cache, tiny_model

PROMPT = (3, 4, 5, 6, 7)
GREEDY = SamplerSettings(max_new_tokens=20, temperature=0, seed=5)
POLICIES = (
    DraftingPolicy(),
    DraftingPolicy(steps=1, min_kept=1),
    DraftingPolicy(steps=3, entropy_limit=0.01, canvas_length=5),
    DraftingPolicy(min_kept=1000),
)


class OtherDrafts(Verified):
    """Verifies other drafts than those of its canvases: right ones, ones that are wrong somewhere, and any tokens."""

    answers: dict[str, tuple[int, ...]]
    rng = random.Random(0)

    def _outcome(self, item, *args) -> DecodingOutcome:
        outcome, request = super()._outcome(item, *args), item.sequence.request
        if outcome.error is not None or self.rng.random() < 0.2:
            return outcome
        right = list(self.answers[request.id][item.sequence.record.written + len(outcome.token_ids) :])
        draft = right[: self.rng.randrange(12)] + [self.rng.randrange(61) for _ in range(self.rng.randrange(4))]
        if draft and self.rng.random() < 0.5:
            draft[self.rng.randrange(len(draft))] = self.rng.randrange(61)
        return replace(outcome, verify=tuple(draft))


def requests_of(rng: random.Random, count: int) -> list[Request]:
    return [
        Request(
            id=f"r{i}",
            prompt=tuple(rng.randrange(61) for _ in range(rng.choice((1, 3, 9, 30, 50)))),
            settings=SamplerSettings(
                max_new_tokens=rng.choice((1, 2, 7, 20, 60)),
                canvas_length=rng.choice((None, 1, 2, 5, 13)),
                temperature=0,
                seed=i,
            ),
            drafts=rng.random() < 0.3,
            top=rng.choice((0, 0, 2)),
            mode="verified",
        )
        for i in range(count)
    ]


def run(core: EngineCore, coming: list[Request], rng: random.Random) -> dict[str, list[Event]]:
    """Submits requests at random moments, and cancels some that are not of mode "verified"."""
    story: dict[str, list[Event]] = {request.id: [] for request in coming}
    coming = list(coming)
    while coming or core.held:
        while coming and (not core.held or rng.random() < 0.5):
            core.submit(coming.pop())
        if core.held and (victim := rng.choice(core.held)).startswith("other") and rng.random() < 0.1:
            core.cancel(victim)
        for event in core.step():
            assert not isinstance(event, Failed), event
            story[event.id].append(event)
    return story


def check(story: list[Event], expected: Generation) -> None:
    found = story[-1]
    assert isinstance(found, Finished)
    generation = found.generation
    assert (generation.token_ids, generation.finish_reason) == (expected.token_ids, expected.finish_reason)
    assert generation.canvases == expected.canvases
    told = [event for event in story if isinstance(event, CanvasCommitted)]
    assert tuple(token for event in told for token in event.token_ids) == expected.token_ids
    for event in told:
        assert event.top is None or tuple(event.top.ids[:, 0].tolist()) == event.token_ids
    verification = generation.verification
    assert verification is not None
    written = len(expected.token_ids) + (expected.finish_reason == "stop")
    assert 1 <= verification.rounds <= written + 1
    assert verification.kept_per_round * verification.rounds == pytest.approx(
        len(expected.token_ids) + 1 if expected.finish_reason == "length" else written
    )


@pytest.mark.parametrize(
    "worker", [pytest.param(worker, marks=[pytest.mark.slow] if worker > 1 else []) for worker in range(20)]
)
def test_it_is_the_greedy_answer_of_any_model_whatever_is_drafted(worker: int) -> None:
    rng = random.Random(worker)
    for seed in range(worker * 20, worker * 20 + 20):
        model = tiny_model(
            seed,
            peak=rng.choice((1.0, 3.0, 6.0)),
            eos_ids=rng.choice(((), (1,), tuple(range(6)))),
            max_context=rng.choice((64, 160)),
            sliding_window=rng.choice((1, 5, 20)),
        )
        core = EngineCore(
            model,
            Limits(forward_tokens=rng.choice((13, 24, 256)), admitted_tokens=rng.choice((200, 10_000))),
        )
        mode = rng.choice((Verified, OtherDrafts))(model.config, torch.device("cpu"), rng.choice(POLICIES))
        core._modes["verified"] = mode
        requests = requests_of(rng, 3)
        expected = {one.id: generate_autoregressive(model, one.prompt, one.settings) for one in requests}
        mode.answers = {id: one.token_ids for id, one in expected.items()}
        others = [
            Request(id=f"other {name}", prompt=PROMPT, settings=GREEDY.replace(steps=3), mode=name)
            for name in ("diffusion", "autoregressive")
        ]
        story = run(core, [*requests, *others], rng)
        for request in requests:
            check(story[request.id], expected[request.id])


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
def test_prepared_models_and_prefixes_that_others_have_read(precision: str) -> None:
    rng = random.Random(7)
    model = prepare(tiny_model(max_context=160).to(Precision.named(precision).dtype), precision)
    core = EngineCore(model, Limits(prefix_tokens=1000))
    system = tuple(rng.randrange(61) for _ in range(20))
    requests = [replace(one, prompt=system + one.prompt) for one in requests_of(rng, 30)]
    story = run(core, requests, rng)
    for request in requests:
        check(story[request.id], generate_autoregressive(model, request.prompt, request.settings))
    assert len(core.prefixes) > 0


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
@torch.inference_mode()
def test_the_causal_pass_has_the_same_bits_over_many_rows_and_over_one(precision: str) -> None:
    model = prepare(tiny_model(max_context=512).to(Precision.named(precision).dtype), precision)
    tokens = torch.randint(61, (100,), generator=torch.Generator().manual_seed(0))
    query = ReadoutQuery(1.0, None, top=5, soft_embedding=False)

    def encode(part: torch.Tensor, cache: KVCache) -> tuple[torch.Tensor, KVCache]:
        result = model.run(FlatBatch.single(part, cache.length, Pass.ENCODER), [cache.revocable()])
        return result.hidden, result.caches[0].truncate(cache.length + len(part))

    one = KVCache(model.config)
    rows = []
    for at in range(100):
        hidden, one = encode(tokens[at : at + 1], one)
        rows.append((hidden, streamed_readout(model.head, hidden, query)))
    many, start = KVCache(model.config), 0
    for count in (1, 7, 8, 9, 25, 50):
        hidden, many = encode(tokens[start : start + count], many)
        read = streamed_readout(model.head, hidden, query)
        for i in range(count):
            assert torch.equal(hidden[i : i + 1], rows[start + i][0])
            assert torch.equal(read.argmax[i : i + 1], rows[start + i][1].argmax)
            assert torch.equal(read.top.log_probs[i : i + 1], rows[start + i][1].top.log_probs)
        start += count


def answer(model: Transformer, request: Request) -> list[Event]:
    core = EngineCore(model)
    core.submit(request)
    events = []
    while core.held:
        events += core.step()
    return events


def test_log_probabilities_are_those_of_the_causal_pass() -> None:
    model = tiny_model(eos_ids=())
    events = answer(model, Request(id="v", prompt=PROMPT, settings=GREEDY, top=3, mode="verified"))
    told = [event for event in events if isinstance(event, CanvasCommitted)]
    found = torch.cat([event.top.log_probs for event in told])
    tokens = tuple(token for event in told for token in event.token_ids)
    scored = answer(model, Request(id="s", prompt=PROMPT + tokens, settings=GREEDY, top=3, mode="scoring"))
    (causal,) = [event for event in scored if isinstance(event, TokensScored)]
    assert torch.equal(found, causal.top.log_probs[len(PROMPT) - 1 : -1])


def test_stop_ids_of_its_own_end_it() -> None:
    model = tiny_model(eos_ids=())
    whole = generate_autoregressive(model, PROMPT, GREEDY).token_ids
    end = max(i for i in range(20) if whole[i] not in whole[:i])
    request = Request(id="v", prompt=PROMPT, settings=GREEDY, stop_ids=(whole[end],), mode="verified")
    found = answer(model, request)[-1]
    assert isinstance(found, Finished)
    assert (found.generation.token_ids, found.generation.finish_reason) == (whole[:end], "stop")


def test_drafts_follow_what_is_kept() -> None:
    model = tiny_model(eos_ids=())
    events = answer(model, Request(id="v", prompt=PROMPT, settings=GREEDY, drafts=True, mode="verified"))
    steps = [event.step for event in events if isinstance(event, StepTaken)]
    # A canvas's first row is the last kept token's.
    assert {len(step.draft) for step in steps} == {7}
    for step in steps:
        assert step.renoised.shape == step.accepted.shape == step.entropy.shape == step.draft.shape
    first = events.index(next(event for event in events if isinstance(event, StepTaken)))
    assert isinstance(events[first - 1], CanvasCommitted)
    generation = events[-1].generation
    assert generation.verification.denoiser_passes == len(steps)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_a_temperature_is_refused(temperature: float) -> None:
    request = Request(id="v", prompt=PROMPT, settings=GREEDY.replace(temperature=temperature), mode="verified")
    with pytest.raises(ValueError, match=f"temperature is {temperature}, must be 0 in mode 'verified'"):
        EngineCore(tiny_model()).sequence(request)


def test_a_pass_that_is_not_finite_fails_its_request_alone() -> None:
    model = tiny_model(eos_ids=())
    core = EngineCore(model)
    sequence = core.sequence(Request(id="v", prompt=PROMPT, settings=GREEDY, mode="verified"))
    core.submit(sequence)
    core.submit(Request(id="w", prompt=PROMPT, settings=GREEDY, mode="verified"))
    events = core.step()
    sequence.cache = broken_cache(model.config, sequence.cache)
    while core.held:
        events += core.step()
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.id == "v"
    assert "not finite behind token 6" in str(failed.error)
    assert [event.id for event in events if isinstance(event, Finished)] == ["w"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extract", "normalize", "repair"])
def test_every_answer_of_the_test_sets_is_the_autoregressive_one(name: str) -> None:
    model = redraft.load()
    core = EngineCore(model.transformer)
    prompts = [tuple(model.encode(case.conversation)) for case in TASKS[name].cases()]
    settings = model.defaults.replace(temperature=0.0, seed=0)
    for i, prompt in enumerate(prompts):
        for mode in ("verified", "autoregressive"):
            core.submit(Request(id=f"{mode} {i}", prompt=prompt, settings=settings, mode=mode))
        if len(core.held) >= 32 or i == len(prompts) - 1:
            found = {}
            while core.held:
                found |= {event.id: event.generation for event in core.step() if isinstance(event, Finished)}
            for j in range(i + 1):
                if f"verified {j}" in found:
                    one, other = found[f"verified {j}"], found[f"autoregressive {j}"]
                    assert (one.token_ids, one.finish_reason) == (other.token_ids, other.finish_reason)
            assert len(found) % 2 == 0
