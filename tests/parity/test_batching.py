"""How tokens are laid out in forwards does not change what comes out of them."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from redraft.model import attention as attention_module
from redraft.model.batch import FlatBatch, Pass, SegmentInput
from redraft.model.transformer import Transformer
from tests.parity.reference import Ours, build_pair, first_settled, make_config, max_difference, pattern, router_margins

TOLERANCE = 1e-5
CONFIG = make_config(layer_types=pattern("sfssf"), sliding_window=5)
CHUNKINGS = [(1,) * 17, (5, 5, 5, 2), (4, 4, 4, 4, 1), (16, 1), (1, 16), (6, 11)]


class Scene:
    """A model and random tokens, by seed."""

    def __init__(self, seed: int) -> None:
        self.model: Transformer = build_pair(CONFIG, seed, "eager").model
        self.generator = torch.Generator().manual_seed(seed)

    def tokens(self, count: int) -> Tensor:
        return torch.randint(CONFIG.vocab_size, (count,), generator=self.generator)

    def side(self, prompt: Tensor) -> Ours:
        side = Ours(self.model)
        side.encode(prompt)
        return side


def flat(
    parts: Sequence[tuple[int, Pass, Tensor]], sides: Sequence[Ours], soft: dict[int, Tensor] | None = None
) -> FlatBatch:
    """(slot, pass, tokens) of each segment, in order; `soft` by segment index. Positions continue within a slot."""
    lengths = [side.cache.length for side in sides]
    inputs = []
    for i, (slot, kind, tokens) in enumerate(parts):
        inputs.append(SegmentInput(tokens, lengths[slot], kind, (soft or {}).get(i), slot))
        if kind is Pass.ENCODER:
            lengths[slot] += len(tokens)
    return FlatBatch.of(inputs)


def run(batch: FlatBatch, sides: Sequence[Ours]) -> list[Tensor]:
    """Hidden states of each segment, after one forward for all of them."""
    forward = sides[0].model.run(batch, [side.cache for side in sides])
    for side, cache in zip(sides, forward.caches, strict=True):
        side.cache = cache
    return [forward.hidden[segment.rows] for segment in batch.segments]


def settled(case: str, compare: Callable[[Scene], list[tuple[Tensor, Tensor]]]) -> None:
    """Asserts that the pairs `compare` makes of a scene agree, on the first seed without a close call."""

    def attempt(seed: int) -> tuple[float, float]:
        scene = Scene(seed)
        with router_margins(scene.model) as margins:
            worst = max_difference(compare(scene))
        return worst, min(margins)

    worst = first_settled(case, attempt)
    print(f"{case}: max difference {worst:.1e}")
    assert worst <= TOLERANCE


@pytest.mark.parametrize("chunks", CHUNKINGS, ids=str)
@torch.inference_mode()
def test_chunked_prefill_is_unchunked_prefill(chunks: tuple[int, ...]) -> None:
    def compare(scene: Scene) -> list[tuple[Tensor, Tensor]]:
        prompt, canvas = scene.tokens(sum(chunks)), scene.tokens(CONFIG.canvas_length)
        whole, chunked = Ours(scene.model), Ours(scene.model)
        parts = [chunked.encode(part) for part in prompt.split(list(chunks))]
        return [(torch.cat(parts), whole.encode(prompt)), (chunked.denoise(canvas), whole.denoise(canvas))]

    settled(f"chunks {chunks}", compare)


@torch.inference_mode()
def test_chunks_of_one_prompt_in_one_batch_are_chunks_in_turn() -> None:
    def compare(scene: Scene) -> list[tuple[Tensor, Tensor]]:
        prompt = scene.tokens(14)
        whole, chunked = Ours(scene.model), Ours(scene.model)
        batch = flat([(0, Pass.ENCODER, part) for part in prompt.split([3, 7, 4])], [chunked])
        return [(torch.cat(run(batch, [chunked])), whole.encode(prompt))]

    settled("chunks in one batch", compare)


@torch.inference_mode()
def test_mixed_batch_is_separate_forwards() -> None:
    # Request 0: the last chunk of its prompt and its first canvas. 1: a later step, with self-conditioning.
    # 2: a commit and the first step of the canvas after it. 3: a commit alone. Their segments interleave.
    def compare(scene: Scene) -> list[tuple[Tensor, Tensor]]:
        prompts = [scene.tokens(n) for n in (9, 1, 13, 6)]
        chunk, commit, last = scene.tokens(7), scene.tokens(8), scene.tokens(8)
        canvases = [scene.tokens(8), scene.tokens(8), scene.tokens(8)]
        together, apart = ([scene.side(prompt) for prompt in prompts] for _ in range(2))
        soft = torch.randn(8, CONFIG.hidden_size, generator=scene.generator)
        batch = flat(
            [
                (2, Pass.ENCODER, commit),
                (1, Pass.DENOISER, canvases[1]),
                (0, Pass.ENCODER, chunk),
                (2, Pass.DENOISER, canvases[2]),
                (3, Pass.ENCODER, last),
                (0, Pass.DENOISER, canvases[0]),
            ],
            together,
            soft={1: soft},
        )
        ours = run(batch, together)

        def denoise(slot: int, signal: Tensor | None = None) -> Tensor:
            canvas = canvases[slot]
            single = FlatBatch.single(canvas, apart[slot].cache.length, Pass.DENOISER, soft_embedding=signal)
            return run(single, [apart[slot]])[0]

        separate = [
            apart[2].encode(commit),
            denoise(1, soft),
            apart[0].encode(chunk),
            denoise(2),
            apart[3].encode(last),
            denoise(0),
        ]
        # And the caches are the same afterwards.
        probe = scene.tokens(8)
        after = [(a.denoise(probe), b.denoise(probe)) for a, b in zip(together, apart, strict=True)]
        assert [side.cache.length for side in together] == [side.cache.length for side in apart] == [16, 1, 21, 14]
        assert [side.cache.num_bytes for side in together] == [side.cache.num_bytes for side in apart]
        return [*zip(ours, separate, strict=True), *after]

    settled("mixed batch", compare)


@torch.inference_mode()
def test_denoising_does_not_touch_the_cache() -> None:
    scene = Scene(0)
    side = scene.side(scene.tokens(11))
    canvas = scene.tokens(8)
    first = side.denoise(canvas)
    side.denoise(scene.tokens(8))
    assert side.cache.length == 11
    assert torch.equal(side.denoise(canvas), first)


@torch.inference_mode()
def test_embeddings_are_the_tokens_they_embed() -> None:
    def compare(scene: Scene) -> list[tuple[Tensor, Tensor]]:
        parts = [(0, Pass.ENCODER, scene.tokens(6)), (1, Pass.DENOISER, scene.tokens(8))]
        soft = {1: torch.randn(8, CONFIG.hidden_size, generator=scene.generator)}
        prompts = [scene.tokens(3), scene.tokens(8)]
        sides, others = ([scene.side(prompt) for prompt in prompts] for _ in range(2))
        tokens = flat(parts, sides, soft)
        embedded = torch.rand(14, generator=scene.generator) < 0.5
        # As the layers see them: whoever feeds embeddings has scaled them.
        embeddings = scene.model.embed_tokens(tokens.token_ids) * scene.model.embedding_scale
        mixed = FlatBatch(
            token_ids=tokens.token_ids.masked_fill(embedded, 0),
            positions=tokens.positions,
            segments=tokens.segments,
            soft_embedding=tokens.soft_embedding,
            embeddings=embeddings.masked_fill(~embedded[:, None], float("nan")),
            embedded=embedded,
        )
        assert embedded.any() and not embedded.all()
        return list(zip(run(mixed, others), run(tokens, sides), strict=True))

    settled("embeddings", compare)


@torch.inference_mode()
def test_query_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(scene: Scene) -> list[tuple[Tensor, Tensor]]:
        prompt, more, canvas = scene.tokens(23), scene.tokens(8), scene.tokens(8)

        def outputs(block: int) -> list[Tensor]:
            monkeypatch.setattr(attention_module, "QUERY_BLOCK", block)
            side = Ours(scene.model)
            return [side.encode(prompt), side.denoise(canvas), side.encode(more), side.denoise(canvas)]

        return list(zip(outputs(3), outputs(1000), strict=True))

    settled("query blocks", compare)
