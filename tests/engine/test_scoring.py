"""Scores of prompts: against a plain forward with all logits, beside other requests, in chunks and at the limits."""

import random

import pytest
import torch

from redraft.diffusion.settings import SamplerSettings
from redraft.engine import (
    Admitted,
    CanvasCommitted,
    EngineCore,
    Event,
    Failed,
    Finished,
    Limits,
    Request,
    TokensScored,
)
from redraft.generation.autoregressive import generate_autoregressive
from redraft.generation.loop import generate
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.model.transformer import Transformer
from tests.fakes.models import broken_cache, tiny_model

SETTINGS = SamplerSettings(max_new_tokens=12, steps=4, seed=5)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model(eos_ids=())


def prompts(count: int) -> list[tuple[int, ...]]:
    rng = random.Random(1)
    return [tuple(rng.randrange(61) for _ in range(rng.randrange(1, 40))) for _ in range(count)]


def run(core: EngineCore) -> list[Event]:
    events = []
    while core.held:
        events += core.step()
    return events


def scores(events: list[Event], id: str) -> tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids [N], log-probabilities [N], and the likeliest [N, A] with theirs [N, A], of one prompt."""
    told = [event for event in events if event.id == id and isinstance(event, TokensScored)]
    return (
        [token for event in told for token in event.token_ids],
        torch.tensor([score for event in told for score in event.log_probs]),
        torch.cat([event.top.ids for event in told]),
        torch.cat([event.top.log_probs for event in told]),
    )


@torch.inference_mode()
def plain(model: Transformer, prompt: tuple[int, ...]) -> torch.Tensor:
    """The causal pass's log-probabilities [N, V] behind each of a prompt's tokens, from all its logits."""
    batch = FlatBatch.single(torch.tensor(prompt), 0, Pass.ENCODER)
    return model.head.logits(model.run(batch, (KVCache(model.config),)).hidden).log_softmax(dim=-1)


def test_scores_are_those_of_a_plain_forward_with_all_logits(model):
    core = EngineCore(model)
    for number, prompt in enumerate(prompts(12)):
        core.submit(Request(id=f"{number}", prompt=prompt, settings=SETTINGS, mode="scoring", top=number % 4))
    events = run(core)
    for number, prompt in enumerate(prompts(12)):
        expected = plain(model, prompt)
        behind = [*prompt[1:], int(expected[-1].argmax())]
        ids, log_probs, top_ids, top = scores(events, f"{number}")
        assert ids == behind
        torch.testing.assert_close(log_probs, expected[range(len(behind)), behind], rtol=0, atol=2e-5)
        torch.testing.assert_close(top, expected.topk(number % 4).values, rtol=0, atol=2e-5)
        assert torch.equal(top_ids, expected.topk(number % 4).indices)


def test_the_token_behind_a_prompt_is_the_first_that_token_by_token_writes(model):
    (prompt,) = prompts(1)
    core = EngineCore(model)
    core.submit(Request(id="s", prompt=prompt, settings=SETTINGS, mode="scoring"))
    *_, committed, finished = run(core)
    expected = generate_autoregressive(model, prompt, SETTINGS.replace(max_new_tokens=1, temperature=0))
    assert isinstance(committed, CanvasCommitted)
    assert isinstance(finished, Finished)
    assert committed.token_ids == finished.generation.token_ids == expected.token_ids
    assert finished.generation.finish_reason == "length"


def test_an_eos_behind_a_prompt_is_scored_and_not_written():
    model = tiny_model(eos_ids=tuple(range(61)))
    core = EngineCore(model)
    core.submit(Request(id="s", prompt=(3, 4, 5), settings=SETTINGS, mode="scoring"))
    events = run(core)
    assert len(scores(events, "s")[0]) == 3
    assert not any(isinstance(event, CanvasCommitted) for event in events)
    assert events[-1].generation.finish_reason == "stop"
    assert events[-1].generation.token_ids == ()


def test_neighbours_chunks_and_prefixes_change_no_bit(model):
    alone = {}
    for number, prompt in enumerate(prompts(8)):
        core = EngineCore(model)
        core.submit(Request(id=f"{number}", prompt=prompt, settings=SETTINGS, mode="scoring", top=2))
        alone[f"{number}"] = scores(run(core), f"{number}")
    core = EngineCore(model, Limits(forward_tokens=24))
    for number, prompt in enumerate(prompts(8)):
        core.submit(Request(id=f"c{number}", prompt=prompt, settings=SETTINGS))
    # What others have read is not enough for a prompt of which every row is wanted, and is not used.
    events = run(core)
    for number, prompt in enumerate(prompts(8)):
        core.submit(Request(id=f"{number}", prompt=prompt, settings=SETTINGS, mode="scoring", top=number % 3))
        core.submit(Request(id=f"d{number}", prompt=prompt, settings=SETTINGS))
    events += run(core)
    for number, prompt in enumerate(prompts(8)):
        ids, log_probs, _, top = scores(events, f"{number}")
        assert ids == alone[f"{number}"][0]
        assert torch.equal(log_probs, alone[f"{number}"][1])
        assert torch.equal(top, alone[f"{number}"][3][:, : number % 3])
        (admitted,) = [event for event in events if event.id == f"{number}" and isinstance(event, Admitted)]
        assert admitted.cached_tokens == 0
        (finished,) = [event for event in events if event.id == f"d{number}" and isinstance(event, Finished)]
        assert finished.generation.token_ids == generate(model, prompt, SETTINGS).token_ids
    assert len([event for event in events if isinstance(event, TokensScored)]) > 8


def test_the_likeliest_token_has_one_log_probability(model):
    """Bit for bit: clients ask in this way whether a token is the greedy one."""
    prompt = [3]
    for _ in range(20):
        prompt.append(int(plain(model, tuple(prompt))[-1].argmax()))
    core = EngineCore(model)
    core.submit(Request(id="s", prompt=tuple(prompt), settings=SETTINGS, mode="scoring", top=1))
    _, log_probs, _, top = scores(run(core), "s")
    assert torch.equal(log_probs, top[:, 0])


def test_a_prompt_may_fill_the_context_and_no_more(model):
    core, full = EngineCore(model), (3, 4) * (model.config.max_context // 2)
    core.submit(Request(id="s", prompt=full, settings=SETTINGS, mode="scoring"))
    events = run(core)
    assert len(scores(events, "s")[0]) == len(full)
    assert events[-1].generation.finish_reason == "length"
    with pytest.raises(ValueError, match=f"the context holds {len(full)}"):
        core.submit(Request(id="s", prompt=(*full, 3), settings=SETTINGS, mode="scoring"))


def test_broken_logits_fail_their_own_prompt(model):
    core = EngineCore(model, Limits(forward_tokens=8))
    held = core.hold(Request(id="s", prompt=tuple(range(20)), settings=SETTINGS, mode="scoring"))
    core.submit(held)
    (sequence,) = held.sequences
    core.step()
    sequence.cache = broken_cache(model.config, sequence.cache)
    core.submit(Request(id="t", prompt=(3, 4, 5), settings=SETTINGS, mode="scoring"))
    events = run(core)
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.id == "s"
    assert "not finite behind token" in str(failed.error)
    assert isinstance(events[-1], Finished) or any(isinstance(event, Finished) for event in events)


@pytest.mark.parametrize("more", [{"drafts": True}, {"stop_ids": (3,)}])
def test_a_scored_prompt_has_no_drafts_and_no_stop_ids(more):
    with pytest.raises(ValueError, match="a prompt that is scored has no drafts"):
        Request(id="s", prompt=(3, 4), settings=SETTINGS, mode="scoring", **more)
