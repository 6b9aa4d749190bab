"""Hidden states and readout are the same bits alone and in a batch (docs/architecture.md, decision 5)."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import redraft
from redraft.model import attention as attention_module
from redraft.model.batch import FlatBatch, Pass, SegmentInput
from redraft.model.cache import KVCache
from redraft.model.native.build import load_kernels
from redraft.model.precision import Precision
from redraft.model.preparation import prepare
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout
from redraft.model.transformer import Transformer
from tests.fakes.models import tiny_model

Part = tuple[int, Pass, Tensor, Tensor | None]


def forward(model: Transformer, parts: Sequence[Part], caches: list[KVCache]) -> list[Tensor]:
    """(slot, pass, tokens, soft embedding) of each segment → its hidden states; `caches` become those after it."""
    lengths, inputs = [cache.length for cache in caches], []
    for slot, kind, tokens, soft in parts:
        inputs.append(SegmentInput(tokens, lengths[slot], kind, soft, slot))
        lengths[slot] += len(tokens) if kind is Pass.ENCODER else 0
    batch = FlatBatch.of(inputs)
    forward = model.run(batch, caches)
    caches[:] = forward.caches
    return [forward.hidden[segment.rows] for segment in batch.segments]


def compare(model: Transformer, prompts: Sequence[int], canvas: int) -> None:
    """Prefill in chunks, first step, later step, commit with the step after it: each request alone, then together."""
    generator = torch.Generator().manual_seed(canvas)
    vocab_size, size = model.config.vocab_size, model.config.hidden_size
    texts = [torch.randint(vocab_size, (n,), generator=generator) for n in prompts]
    canvases = [torch.randint(vocab_size, (canvas,), generator=generator) for _ in prompts]
    softs = [torch.randn(canvas, size, generator=generator) for _ in prompts]
    alone: list[list[Tensor]] = []
    for text, noise, soft in zip(texts, canvases, softs, strict=True):
        cache = [KVCache(model.config)]
        (prefill,) = forward(model, [(0, Pass.ENCODER, text, None)], cache)
        (first,) = forward(model, [(0, Pass.DENOISER, noise, None)], cache)
        (later,) = forward(model, [(0, Pass.DENOISER, noise, soft)], cache)
        (commit,) = forward(model, [(0, Pass.ENCODER, noise, None)], cache)
        (after,) = forward(model, [(0, Pass.DENOISER, noise, None)], cache)
        alone.append([prefill, first, later, commit, after])

    caches = [KVCache(model.config) for _ in prompts]
    cuts = [max(1, n // 3) for n in prompts]
    chunks = forward(model, [(i, Pass.ENCODER, text[: cuts[i]], None) for i, text in enumerate(texts)], caches)
    parts: list[Part] = []
    for i, (text, cut) in enumerate(zip(texts, cuts, strict=True)):
        parts += [(i, Pass.ENCODER, text[cut:], None)] if cut < len(text) else []
        parts.append((i, Pass.DENOISER, canvases[i], None))
    rest = iter(forward(model, parts, caches))
    for i, text in enumerate(texts):
        prefill = torch.cat((chunks[i], next(rest))) if cuts[i] < len(text) else chunks[i]
        assert torch.equal(prefill, alone[i][0])
        assert torch.equal(next(rest), alone[i][1])
    later = forward(model, [(i, Pass.DENOISER, canvases[i], softs[i]) for i in range(len(texts))], caches)
    assert all(torch.equal(hidden, alone[i][2]) for i, hidden in enumerate(later))
    merged = forward(
        model,
        [(i, kind, canvases[i], None) for i in range(len(texts)) for kind in (Pass.ENCODER, Pass.DENOISER)],
        caches,
    )
    assert all(torch.equal(hidden, alone[i // 2][3 + i % 2]) for i, hidden in enumerate(merged))

    uniform = torch.rand(len(later) * canvas, generator=generator, dtype=torch.float64)
    heats = [0.3 + 0.1 * i for i in range(len(later))]
    by_row = torch.tensor(heats, dtype=torch.float64).repeat_interleave(canvas)
    together = streamed_readout(model.head, torch.cat(later), ReadoutQuery(by_row, uniform))
    for i, (hidden, chance) in enumerate(zip(later, uniform.split(canvas), strict=True)):
        one = streamed_readout(model.head, hidden, ReadoutQuery(heats[i], chance))
        rows = slice(i * canvas, (i + 1) * canvas)
        for name in ("sample", "argmax", "entropy", "soft_embedding"):
            assert torch.equal(getattr(one, name), getattr(together, name)[rows]), name


@pytest.mark.parametrize("block", [4, 64])
@pytest.mark.parametrize("canvas", [1, 5, 8])
@torch.inference_mode()
def test_tiny_model(monkeypatch, block, canvas):
    monkeypatch.setattr(attention_module, "QUERY_BLOCK", block)
    compare(tiny_model(max_context=512), (1, 2, 7, 9, 30, 64, 65, 100), canvas)


@pytest.mark.parametrize("way", ["kernels", "kernels with torch's products and attention", "torch"])
@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("canvas", [1, 5, 8])
@torch.inference_mode()
def test_prepared_tiny_model(way, precision, canvas):
    kernels = load_kernels()
    if way != "torch" and kernels is None:
        pytest.skip("no compiler here")
    if "torch's" in way:
        kernels = copy.copy(kernels)
        kernels.has_multiply = kernels.has_attend = lambda *_: False
    plain = tiny_model(max_context=512).to(Precision.named(precision).dtype)
    model = prepare(plain, precision, find_kernels=lambda: None if way == "torch" else kernels)
    compare(model, (1, 2, 7, 9, 30, 64, 65, 100), canvas)


@pytest.mark.parametrize("canvas", [13, 64])
@torch.inference_mode()
def test_bundled_model(canvas):
    for precision in ("float32", "bf16"):
        compare(redraft.load(precision=precision).transformer, (3, 20, 77, 130), canvas)


def test_filling_is_needed_here():
    """Or else what the model does for it costs something and gives nothing."""
    weight, rows = torch.randn(48, 32), torch.randn(64, 32)
    whole = torch.nn.functional.linear(rows, weight)
    assert any(not torch.equal(torch.nn.functional.linear(rows[:n], weight), whole[:n]) for n in range(1, 8))
