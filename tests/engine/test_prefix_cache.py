import gc
import random
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from redraft.diffusion.settings import SamplerSettings
from redraft.engine import EngineCore, Finished, Limits, Request
from redraft.engine.prefix_cache import MIN_TOKENS, PrefixCache
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from tests.fakes.models import tiny_config, tiny_model

SYSTEM = tuple(range(2, 32))
SETTINGS = SamplerSettings(max_new_tokens=8, steps=2, seed=1)


@pytest.fixture(scope="module")
def model():
    return tiny_model(max_context=200, eos_ids=())


def holding(length: int) -> KVCache:
    cache = KVCache(tiny_config())
    cache.advance(length)
    return cache


def test_the_longest_whole_prefix_is_found_and_where_the_prompt_parts():
    prefixes = PrefixCache(1000)
    prefixes.publish(SYSTEM[:20], holding(20))
    prefixes.publish(SYSTEM, holding(30))
    cache, branch = prefixes.find([*SYSTEM, 5, 6])
    assert cache is not None
    assert (cache.length, branch) == (30, None)
    # A prefix is resumed at its end only; but the prompt is to stop where it parts from the longer one.
    cache, branch = prefixes.find([*SYSTEM[:25], 60])
    assert cache is not None
    assert (cache.length, branch) == (20, 25)
    assert prefixes.find([60, *SYSTEM]) == (None, None)


def test_the_limit_is_kept_and_what_was_used_last_stays():
    prefixes = PrefixCache(100)
    rng = random.Random(0)
    for _ in range(50):
        prefixes.find((*SYSTEM, 1))
        prefixes.publish(SYSTEM, holding(30))
        other = [rng.randrange(60) for _ in range(rng.randrange(MIN_TOKENS, 60))]
        prefixes.publish(other, holding(len(other)))
        assert prefixes.tokens <= 100
        assert prefixes.find(other)[0] is not None
    assert prefixes.find(SYSTEM)[0] is not None
    prefixes.publish(range(101), holding(101))
    assert prefixes.tokens <= 100
    prefixes.clear()
    assert (len(prefixes), prefixes.tokens, prefixes.num_bytes) == (0, 0, 0)


def test_of_an_answers_commits_the_last_is_kept(model):
    core = EngineCore(model)
    core.submit(Request(id="a", prompt=SYSTEM, settings=SETTINGS.replace(max_new_tokens=80)))
    while core.held:
        core.step()
    # The prompt, and it with the nine canvases that were committed.
    assert core.prefixes.tokens == 30 + (30 + 72)
    assert len(core.prefixes) == 2


class Counting:
    """The rows of encoder passes that a model has run."""

    def __init__(self, model, monkeypatch) -> None:
        self.rows = 0
        forward = type(model).forward

        def counted(this, batch, context):
            self.rows += sum(segment.length for segment in batch.segments if segment.kind is Pass.ENCODER)
            return forward(this, batch, context)

        monkeypatch.setattr(type(model), "forward", counted)

    def answer(self, core: EngineCore, *prompts: tuple[int, ...]) -> tuple[int, list[tuple[int, ...]]]:
        """Rows read for these prompts, one after the other, and the answers."""
        before, found = self.rows, []
        for i, prompt in enumerate(prompts):
            core.submit(Request(id=str(i), prompt=prompt, settings=SETTINGS))
            while core.held:
                found += [event.generation.token_ids for event in core.step() if isinstance(event, Finished)]
        return self.rows - before, found


def test_a_shared_system_prompt_is_read_twice(model, monkeypatch):
    counting = Counting(model, monkeypatch)
    prompts = [(*SYSTEM, 40 + i, 50) for i in range(5)]
    core = EngineCore(model)
    rows, found = counting.answer(core, *prompts)
    assert rows == 32 + 32 + 3 * 2
    assert counting.answer(core, prompts[1])[0] == 0
    alone, expected = counting.answer(EngineCore(model, Limits(prefix_tokens=0)), *prompts)
    assert alone == 5 * 32
    assert found == expected


def test_a_conversation_goes_on_from_what_was_committed(model, monkeypatch):
    counting = Counting(model, monkeypatch)
    core = EngineCore(model)
    core.submit(Request(id="a", prompt=SYSTEM, settings=SETTINGS.replace(max_new_tokens=24)))
    found = []
    while core.held:
        found += [event.generation for event in core.step() if isinstance(event, Finished)]
    written = [token for canvas in found[0].canvases for token in canvas]
    # The last canvas of an answer is not committed.
    assert counting.answer(core, (*SYSTEM, *written, 7, 8))[0] == 8 + 2


def test_sliding_layers_keep_only_their_window(model):
    with torch.inference_mode():
        batch = FlatBatch.single(torch.arange(50), 0, Pass.ENCODER)
        (cache,) = model.run(batch, [KVCache(model.config)]).caches
    held = [cache.content(layer)[0] for layer in range(model.config.num_layers)]
    assert [keys.shape[0] for keys in held] == [4, 4, 50]
    # And hold on to nothing else.
    assert [keys.untyped_storage().nbytes() for keys in held] == [4 * 2 * 8 * 4, 4 * 2 * 8 * 4, 50 * 16 * 4]


@pytest.mark.parametrize("steps", range(8))
def test_cancelling_at_any_step_frees_everything(model, steps):
    gc.collect()
    core = EngineCore(model, Limits(prefix_tokens=0, forward_tokens=16))

    def caches() -> int:
        return sum(type(thing) is KVCache for thing in gc.get_objects())

    before = caches()
    settings = SETTINGS.replace(max_new_tokens=24)
    for i in range(3):
        core.submit(Request(id=str(i), prompt=SYSTEM, settings=settings))
    for _ in range(steps):
        core.step()
    assert len(core.held) == 3
    assert caches() == before + 3
    for id in core.held:
        core.cancel(id)
    assert core.step() == []
    assert not core.scheduler.admitted
    assert caches() == before


tokens = st.lists(st.integers(0, 2), min_size=1, max_size=24).map(tuple)


@given(st.lists(st.tuples(st.booleans(), tokens, st.sampled_from([None, "a"]), st.integers(0, 24)), max_size=40))
def test_the_tree_finds_what_comparing_with_every_entry_finds(operations):
    """Published and looked up in any order, with little room, so that much is evicted."""
    prefixes, entries = PrefixCache(120), OrderedDict()
    for publishes, run, adapter, instead_of in operations:
        run = (9,) * (MIN_TOKENS - 2) + run
        if publishes:
            prefixes.publish(run, holding(len(run)), adapter=adapter, instead_of=instead_of)
            if MIN_TOKENS <= len(run) <= 120:
                entries.pop((adapter, run[:instead_of]), None)
                entries[adapter, run] = None
                entries.move_to_end((adapter, run))
            while sum(len(held) for _, held in entries) > 120:
                entries.popitem(last=False)
        else:
            held = [other for name, other in entries if name == adapter]
            best = max((len(other) for other in held if run[: len(other)] == other), default=0)
            parts_at = max((shared(run, other) for other in held), default=0)
            cache, branch = prefixes.find(run, adapter)
            assert (0 if cache is None else cache.length) == best
            assert branch == (parts_at if parts_at >= MIN_TOKENS and best < parts_at < len(run) else None)
            if best:
                entries.move_to_end((adapter, run[:best]))
        assert len(prefixes) == len(entries)
        assert prefixes.tokens == sum(len(held) for _, held in entries)


def shared(one, other):
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
