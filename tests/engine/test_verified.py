"""Verified drafts: whatever is drafted and whatever runs beside it, the answer is the autoregressive one."""

import random
from dataclasses import replace

import pytest
import torch

import redraft
from redraft.constraints.tokens import TokenAutomaton
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
from redraft.engine.modes.causal import Causal
from redraft.engine.modes.drafting import Drafting, DraftingPolicy
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
from tests.fakes.constraints import END, anything, automaton
from tests.fakes.models import broken_cache, tiny_model

PROMPT = (3, 4, 5, 6, 7)
GREEDY = SamplerSettings(max_new_tokens=20, temperature=0, seed=5)
AUTOMATA = [
    automaton("regex", "[a-c]{0,30}"),
    automaton("regex", "(é|b)*"),
    automaton("regex", "ab(cd){3}"),
    automaton("json_schema", '{"type": "array", "items": {"enum": ["abc", 10, true, null]}}'),
    anything(),
]
POLICIES = (
    DraftingPolicy(),
    DraftingPolicy(steps=1, min_kept=1),
    DraftingPolicy(steps=3, entropy_limit=0.01, canvas_length=5),
    DraftingPolicy(min_kept=1000),
)


class OtherDrafts(Drafting):
    """Drafts other tokens than those of its canvases: right ones, ones that are wrong somewhere, and any tokens."""

    answers: dict[str, tuple[int, ...]]
    rng = random.Random(0)

    def advanced(self, sequence, stepped, kept, head):
        canvas, draft = super().advanced(sequence, stepped, kept, head)
        if sequence.request.mode == "autoregressive" or self.rng.random() < 0.2:
            return canvas, draft
        right = list(self.answers[sequence.request.id][sequence.record.written + len(kept) :])
        draft = right[: self.rng.randrange(12)] + [self.rng.randrange(61) for _ in range(self.rng.randrange(4))]
        if draft and self.rng.random() < 0.5:
            draft[self.rng.randrange(len(draft))] = self.rng.randrange(61)
        return canvas, draft


def requests_of(
    rng: random.Random,
    count: int,
    constraints: list[TokenAutomaton] | None = None,
    modes: tuple[str, ...] = ("verified", "verified", "autoregressive"),
) -> list[Request]:
    found = []
    for i in range(count):
        mode, constraint = (
            rng.choice(modes),
            rng.choice([None, *(constraints or [])]),
        )
        shortest = 0 if constraint is None else constraint.min_tokens
        request = Request(
            id=f"r{i}",
            prompt=tuple(rng.randrange(61) for _ in range(rng.choice((1, 3, 9, 30, 40)))),
            settings=SamplerSettings(
                max_new_tokens=max(shortest, rng.choice((1, 2, 7, 20, 60))),
                canvas_length=rng.choice((None, 1, 2, 5, 13)),
                temperature=rng.choice((0, 0, 0.7, 1.5)),
                seed=i,
                index=rng.choice((0, 1)),
            ),
            drafts=mode != "autoregressive" and rng.random() < 0.3,
            top=rng.choice((0, 0, 2)),
            mode=mode,
            constraint=constraint,
        )
        found.append(request)
    return found


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


def expected_of(model: Transformer, request: Request) -> Generation:
    return generate_autoregressive(model, request.prompt, request.settings, request.constraint)


def check(story: list[Event], request: Request, expected: Generation) -> None:
    found = story[-1]
    assert isinstance(found, Finished)
    generation = found.generation
    assert (generation.token_ids, generation.finish_reason) == (expected.token_ids, expected.finish_reason)
    assert generation.canvases == expected.canvases
    told = [event for event in story if isinstance(event, CanvasCommitted)]
    assert tuple(token for event in told for token in event.token_ids) == expected.token_ids
    for event in told:
        if event.top is not None:
            assert len(event.log_probs) == len(event.token_ids)
            if not request.settings.temperature:
                assert tuple(event.top.ids[:, 0].tolist()) == event.token_ids
                assert event.log_probs == tuple(event.top.log_probs[:, 0].tolist())
    assert (generation.constraint is None) == (request.constraint is None)
    if request.constraint is not None:
        assert request.constraint.state_after([*generation.token_ids, END]) == request.constraint.done
    verification = generation.verification
    if request.mode == "autoregressive":
        assert verification is None
        assert generation.steps_per_canvas == expected.steps_per_canvas
        return
    assert verification is not None
    # Behind the last token stands the EOS, or a token without room, or nothing where a constraint allows nothing.
    last = len(expected.token_ids) + 1
    assert 1 <= verification.rounds <= last
    assert verification.drafted_rounds <= verification.rounds
    assert last - (request.constraint is not None) <= round(verification.kept_per_round * verification.rounds) <= last


@pytest.mark.parametrize(
    "worker", [pytest.param(worker, marks=[pytest.mark.slow] if worker else []) for worker in range(20)]
)
def test_it_is_the_greedy_answer_of_any_model_whatever_is_drafted(worker: int) -> None:
    rng = random.Random(worker)
    for seed in range(worker * 20, worker * 20 + 20):
        eos_ids = rng.choice(((), (1,), (1,), tuple(range(6))))
        model = tiny_model(
            seed,
            peak=rng.choice((1.0, 3.0, 6.0)),
            eos_ids=eos_ids,
            max_context=rng.choice((64, 160)),
            sliding_window=rng.choice((1, 5, 20)),
        )
        core = EngineCore(
            model,
            Limits(forward_tokens=rng.choice((13, 24, 256)), admitted_tokens=rng.choice((200, 10_000))),
        )
        policy = rng.choice(POLICIES)
        mode = Causal(model.config, torch.device("cpu"), policy)
        mode._drafting = drafting = rng.choice((Drafting, OtherDrafts))(model.config, torch.device("cpu"), policy)
        core._modes |= {"verified": mode, "autoregressive": mode}
        requests = requests_of(rng, 3, AUTOMATA if eos_ids == (END,) else None)
        expected = {one.id: expected_of(model, one) for one in requests}
        drafting.answers = {id: one.token_ids for id, one in expected.items()}
        others = [
            Request(id=f"other {name}", prompt=PROMPT, settings=GREEDY.replace(steps=3), mode=name)
            for name in ("diffusion", "autoregressive")
        ]
        story = run(core, [*requests, *others], rng)
        for request in requests:
            check(story[request.id], request, expected[request.id])


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
def test_prepared_models_and_prefixes_that_others_have_read(precision: str) -> None:
    rng = random.Random(7)
    model = prepare(tiny_model(max_context=160).to(Precision.named(precision).dtype), precision)
    core = EngineCore(model, Limits(prefix_tokens=1000))
    system = tuple(rng.randrange(61) for _ in range(20))
    requests = [replace(one, prompt=system + one.prompt) for one in requests_of(rng, 20)]
    story = run(core, requests, rng)
    for request in requests:
        check(story[request.id], request, expected_of(model, request))
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


def test_what_is_drawn_is_distributed_as_the_causal_pass_says() -> None:
    """Of all answers of two tokens the shares are those that are enumerated, in both modes the same answers."""
    model = tiny_model(peak=0.7, eos_ids=(), vocab_size=7)
    prompt, temperature, count = (3, 4, 5), 1.3, 1200

    def distribution(tokens: tuple[int, ...]) -> torch.Tensor:
        batch = FlatBatch.single(torch.tensor(tokens), 0, Pass.ENCODER)
        with torch.inference_mode():
            logits = model.head.logits(model.run(batch, [KVCache(model.config)]).hidden[-1:])[0]
        return (logits.double() / temperature).softmax(-1)

    first = distribution(prompt)
    wanted = torch.stack([first[token] * distribution((*prompt, token)) for token in range(7)]).flatten()
    core = EngineCore(model, Limits(queued_requests=count, admitted_requests=300))
    settings = SamplerSettings(max_new_tokens=2, temperature=temperature)
    for i in range(count):
        mode = "verified" if i % 2 else "autoregressive"
        core.submit(Request(id=str(i), prompt=prompt, settings=settings.replace(seed=i), mode=mode))
    found = torch.zeros(49)
    while core.held:
        for event in core.step():
            if isinstance(event, Finished):
                one, other = event.generation.token_ids
                found[7 * one + other] += 1
    common = wanted * count >= 5
    assert common.sum() > 10
    found = torch.cat([found[common], found[~common].sum()[None]])
    wanted = torch.cat([wanted[common], wanted[~common].sum()[None]]) * count
    chi_square = float(((found - wanted) ** 2 / wanted).sum())
    freedom = len(wanted) - 1
    # Five standard deviations above its mean.
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


def test_log_probabilities_of_what_is_drawn() -> None:
    model = tiny_model(eos_ids=())
    settings = GREEDY.replace(temperature=2)
    events = answer(model, Request(id="v", prompt=PROMPT, settings=settings, top=3, mode="verified"))
    told = [event for event in events if isinstance(event, CanvasCommitted)]
    tokens = tuple(token for event in told for token in event.token_ids)
    scored = answer(model, Request(id="s", prompt=PROMPT + tokens, settings=GREEDY, top=3, mode="scoring"))
    (causal,) = [event for event in scored if isinstance(event, TokensScored)]
    assert tuple(x for event in told for x in event.log_probs) == causal.log_probs[len(PROMPT) - 1 : -1]
    assert any(tokens[i] != event for i, event in enumerate(causal.top.ids[len(PROMPT) - 1 : -1, 0].tolist()))


def test_what_a_round_kept_of_its_draft_is_told() -> None:
    model = tiny_model(eos_ids=())
    events = answer(model, Request(id="v", prompt=PROMPT, settings=GREEDY, drafts=True, mode="verified"))
    rounds = [event for event in events if isinstance(event, CanvasCommitted)]
    found = events[-1].generation.verification
    assert sum(bool(event.draft) for event in rounds) == found.drafted_rounds > 0
    for event in rounds[:-1]:
        *kept, last = event.token_ids
        assert event.draft[: len(kept)] == tuple(kept)
        assert event.draft[len(kept) : len(event.token_ids)] != (last,)
    assert sum(event.steps for event in rounds) <= found.denoiser_passes


def test_a_pass_that_is_not_finite_fails_its_request_alone() -> None:
    model = tiny_model(eos_ids=())
    core = EngineCore(model)
    held = core.hold(Request(id="v", prompt=PROMPT, settings=GREEDY, mode="verified"))
    core.submit(held)
    (sequence,) = held.sequences
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
