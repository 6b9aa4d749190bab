"""Caches are values: whatever is done with them, a forward reads what it would read if all had been encoded anew."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from redraft.model.batch import FlatBatch, Pass, SegmentInput
from redraft.model.cache import KVCache
from redraft.model.preparation import prepare
from redraft.model.transformer import Transformer
from tests.fakes.models import tiny_model

CANVAS = torch.arange(20, 28)


@pytest.fixture(scope="module", params=["plain", "prepared"])
def model(request: pytest.FixtureRequest) -> Transformer:
    """With windows of 40, so that there are caches that can be truncated and some that cannot."""
    found = tiny_model(sliding_window=40, max_context=512)
    return prepare(found, "float32") if request.param == "prepared" else found


def encode(model: Transformer, tokens: Tensor, cache: KVCache) -> tuple[Tensor, KVCache]:
    forward = model.run(FlatBatch.single(tokens, cache.length, Pass.ENCODER), [cache])
    return forward.hidden, forward.caches[0]


def denoise(model: Transformer, canvas: Tensor, cache: KVCache) -> Tensor:
    forward = model.run(FlatBatch.single(canvas, cache.length, Pass.DENOISER), [cache])
    assert forward.caches == (cache,)
    return forward.hidden


def anew(model: Transformer, tokens: Tensor) -> KVCache:
    cache = KVCache(model.config)
    return encode(model, tokens, cache)[1] if len(tokens) else cache


@torch.inference_mode()
def test_a_pass_whose_result_is_not_taken_has_changed_nothing(model: Transformer) -> None:
    _, cache = encode(model, torch.arange(3, 12), KVCache(model.config))
    wanted, size = denoise(model, CANVAS, cache), cache.num_bytes
    encode(model, CANVAS, cache)
    assert (cache.length, cache.num_bytes) == (9, size)
    assert torch.equal(denoise(model, CANVAS, cache), wanted)


@torch.inference_mode()
def test_a_canvas_does_not_see_what_its_own_sequence_commits_behind_it_in_the_batch(model: Transformer) -> None:
    _, cache = encode(model, torch.arange(3, 12), KVCache(model.config))
    before = SegmentInput(CANVAS, 9, Pass.DENOISER)
    batch = FlatBatch.of([before, SegmentInput(torch.arange(3, 40), 9, Pass.ENCODER)])
    forward = model.run(batch, [cache])
    assert torch.equal(forward.hidden[: len(CANVAS)], denoise(model, CANVAS, cache))
    assert forward.caches[0].length == 46


@dataclass
class Held:
    """A cache, and the tokens that it is to hold."""

    cache: KVCache
    tokens: Tensor


@given(data=st.data())
@settings(max_examples=40, deadline=None)
@torch.inference_mode()
def test_any_use_of_caches_is_recomputing_from_scratch(model: Transformer, data: st.DataObject) -> None:
    held = [Held(KVCache(model.config), torch.empty(0, dtype=torch.int64))]
    for _ in range(data.draw(st.integers(1, 8))):
        one = data.draw(st.sampled_from(held))
        tokens = torch.tensor(data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=25)))
        match data.draw(st.sampled_from(["encode", "denoise", "discard", "fork", "truncate", "take back"])):
            case "encode":
                hidden, one.cache = encode(model, tokens, one.cache)
                whole, _ = encode(model, torch.cat((one.tokens, tokens)), KVCache(model.config))
                assert torch.equal(hidden, whole[len(one.tokens) :])
                one.tokens = torch.cat((one.tokens, tokens))
            case "denoise":
                assert torch.equal(denoise(model, tokens, one.cache), denoise(model, tokens, anew(model, one.tokens)))
            case "discard":
                encode(model, tokens, one.cache)
            case "fork":
                held.append(Held(one.cache.fork(), one.tokens))
            case "truncate":
                to = data.draw(st.integers(one.cache.min_truncation, one.cache.length))
                held.append(Held(one.cache.truncate(to), one.tokens[:to]))
            case "take back":
                hidden, longer = encode(model, tokens, one.cache.revocable())
                whole, _ = encode(model, torch.cat((one.tokens, tokens)), KVCache(model.config))
                assert torch.equal(hidden, whole[len(one.tokens) :])
                kept = data.draw(st.integers(0, len(tokens)))
                assert longer.min_truncation == len(one.tokens)
                held.append(Held(longer.truncate(one.cache.length + kept), torch.cat((one.tokens, tokens[:kept]))))
    for one in held:
        wanted = anew(model, one.tokens)
        assert (one.cache.length, one.cache.num_bytes) == (wanted.length, wanted.num_bytes)
        assert torch.equal(denoise(model, CANVAS, one.cache), denoise(model, CANVAS, wanted))


@pytest.mark.parametrize("length", [4, 5, 17])
@torch.inference_mode()
def test_what_a_sliding_layer_has_evicted_cannot_be_truncated(length: int) -> None:
    model = tiny_model()  # with windows of 5
    cache = anew(model, torch.arange(length))
    assert cache.truncate(length).length == length
    if length == 4:
        assert cache.min_truncation == 0
        assert cache.truncate(0).num_bytes == 0
        return
    assert cache.min_truncation == length
    with pytest.raises(
        ValueError,
        match=f"a cache of {length} tokens cannot be truncated to 4: the length must lie between {length} and "
        f"{length}, as sliding layers keep only the last 4 tokens; keep the cache from before",
    ):
        cache.truncate(4)


@pytest.mark.parametrize("to", [-1, 10])
@torch.inference_mode()
def test_a_length_outside_the_cache_is_refused(to: int) -> None:
    model = tiny_model(sliding_window=40)
    with pytest.raises(ValueError, match=f"a cache of 9 tokens cannot be truncated to {to}: .* between 0 and 9"):
        anew(model, torch.arange(9)).truncate(to)


@torch.inference_mode()
def test_layers_that_see_nothing_of_the_past_have_nothing_to_lose() -> None:
    model = tiny_model(sliding_window=1)
    cache = anew(model, torch.arange(17))
    assert cache.min_truncation == 0
    short = anew(model, torch.arange(6))
    assert torch.equal(denoise(model, CANVAS, cache.truncate(6)), denoise(model, CANVAS, short))


@torch.inference_mode()
def test_nothing_before_a_cache_was_revocable_can_be_taken_back() -> None:
    model = tiny_model()
    _, cache = encode(model, torch.arange(6), anew(model, torch.arange(9)).revocable())
    with pytest.raises(ValueError, match=r"a cache of 15 tokens cannot be truncated to 8: .* between 9 and 15"):
        cache.truncate(8)


@torch.inference_mode()
def test_what_is_cut_off_is_freed() -> None:
    cache = anew(tiny_model(sliding_window=40), torch.arange(30)).truncate(10)
    keys, _ = cache.content(2)
    assert keys is not None
    assert keys.untyped_storage().nbytes() == keys.nbytes
