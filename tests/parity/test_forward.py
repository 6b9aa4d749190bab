"""Encoder and denoiser agree with transformers over configurations that differ in every structural knob."""

from functools import lru_cache

import pytest
import torch
from torch import Tensor

from redraft.model.config import ModelConfig
from tests.parity.reference import (
    Ours,
    Pair,
    Theirs,
    build_pair,
    first_settled,
    make_config,
    max_difference,
    pattern,
    router_margins,
    shape,
)

TOLERANCE = 1e-4
CANVASES = 3
TEMPERATURE = 0.6

CONFIGS: dict[str, ModelConfig] = {
    "alternating": make_config(),
    "single-full-layer": make_config(layer_types=pattern("f"), canvas_length=5),
    "all-full": make_config(layer_types=pattern("fff"), full=shape(12, 1, 3e4, 0.5), hidden_size=36),
    "five-to-one": make_config(
        layer_types=pattern("sssssfsssssf"), sliding_window=4, sliding=shape(8, 4, 1e4), full=shape(16, 2, 1e6, 0.25)
    ),
    "window-one": make_config(layer_types=pattern("ssf"), sliding_window=1),
    "window-two": make_config(layer_types=pattern("sff"), sliding_window=2, canvas_length=3),
    "window-beyond-first-canvas": make_config(layer_types=pattern("ssf"), sliding_window=40, canvas_length=6),
    "canvas-beyond-window": make_config(layer_types=pattern("sfsf"), sliding_window=3, canvas_length=17),
    "mqa-sliding-mha-full": make_config(sliding=shape(10, 1, 1e4), full=shape(6, 4, 1e6, 0.5)),
    "mha-both": make_config(num_heads=3, sliding=shape(4, 3, 1e4), full=shape(20, 3, 1e6, 0.25), hidden_size=24),
    "tiny-heads": make_config(sliding=shape(2, 2, 1e4), full=shape(2, 4, 1e6, 0.25)),
    "top-one-expert": make_config(num_experts=5, experts_per_token=1, expert_size=24),
    "all-experts": make_config(num_experts=3, experts_per_token=3, expert_size=16, dense_size=20),
    "many-small-experts": make_config(num_experts=17, experts_per_token=5, expert_size=3, dense_size=7),
    "one-expert": make_config(num_experts=1, experts_per_token=1, expert_size=32, dense_size=64),
    "canvas-of-one": make_config(canvas_length=1),
    "small-softcap": make_config(softcap=1.5),
    "larger-vocabulary": make_config(vocab_size=1031, hidden_size=64),
    "large-eps": make_config(norm_eps=0.05),
    "other-ropes": make_config(sliding=shape(16, 2, 50.0, 0.5), full=shape(12, 2, 700.0, 1.0)),
}


def prompt_lengths(config: ModelConfig) -> list[int]:
    """One token, around the window's edge, and three windows."""
    window = config.sliding_window
    return sorted({1, max(1, window - 1), window, window + 1, 3 * window})


CASES = [
    pytest.param(name, attention, length, id=f"{name}-{attention}-{length}")
    for name, config in CONFIGS.items()
    for attention in ("eager", "sdpa")
    for length in prompt_lengths(config)[:: 1 if attention == "eager" else 2]
]


@lru_cache(maxsize=8)
def pair_of(name: str, attention: str, seed: int) -> Pair:
    return build_pair(CONFIGS[name], seed, attention)


def random_tokens(config: ModelConfig, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(config.vocab_size, (count,), generator=generator)


def a_run(side: Ours | Theirs, config: ModelConfig, length: int, seed: int) -> dict[str, Tensor]:
    """Prompt, then canvases: denoised from noise, denoised with self-conditioning, committed."""
    generator = torch.Generator().manual_seed(1000 * seed + length)
    seen = {"prompt": side.encode(random_tokens(config, length, generator))}
    for canvas in range(CANVASES):
        noisy = random_tokens(config, config.canvas_length, generator)
        first = seen[f"canvas {canvas}, logits"] = side.denoise(noisy)
        better = random_tokens(config, config.canvas_length, generator)
        seen[f"canvas {canvas}, self-conditioned logits"] = side.denoise(better, first / TEMPERATURE)
        seen[f"canvas {canvas}, commit"] = side.encode(random_tokens(config, config.canvas_length, generator))
    return seen


@pytest.mark.parametrize(("name", "attention", "length"), CASES)
@torch.inference_mode()
def test_forward_agrees(name: str, attention: str, length: int) -> None:
    config = CONFIGS[name]

    def run(seed: int) -> tuple[tuple[dict[str, Tensor], Pair, int], float]:
        pair = pair_of(name, attention, seed)
        with router_margins(pair.model) as margins:
            return (a_run(Ours(pair.model), config, length, seed), pair, seed), min(margins, default=1.0)

    ours, pair, seed = first_settled(f"{name}-{attention}-{length}", run)
    theirs = a_run(Theirs(pair.reference), config, length, seed)
    worst = {what: max_difference([(ours[what], theirs[what])]) for what in ours}
    assert max(worst.values()) <= TOLERANCE, worst
    print(f"{name}-{attention}-{length}: seed {seed}, max difference {max(worst.values()):.1e}")

    logits = torch.cat([tensor for what, tensor in ours.items() if "logits" in what])
    assert 0.2 < float(logits.std()) < 5
    if name == "small-softcap":
        assert float(logits.abs().max()) > 0.9 * config.softcap


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.inference_mode()
def test_self_conditioning_and_layer_scalars_matter(attention: str) -> None:
    # Else the comparisons above would not see them missing.
    pair = pair_of("alternating", attention, 0)
    scalars = torch.cat([t for name, t in pair.model.state_dict().items() if name.endswith("layer_scalar")])
    assert len(set(scalars.tolist())) == 2 * pair.config.num_layers
    assert float((scalars - 1).abs().max()) > 0.1
    run = a_run(Ours(pair.model), pair.config, 7, 0)
    generator = torch.Generator().manual_seed(1)
    canvas = random_tokens(pair.config, pair.config.canvas_length, generator)
    side = Ours(pair.model)
    side.encode(random_tokens(pair.config, 7, generator))
    plain = side.denoise(canvas)
    assert float((side.denoise(canvas, run["canvas 0, logits"]) - plain).abs().mean()) > 0.1


@pytest.mark.parametrize("name", ["alternating", "five-to-one", "window-one", "all-full"])
@torch.inference_mode()
def test_cache_keeps_what_a_later_token_can_see(name: str) -> None:
    config = CONFIGS[name]
    side = Ours(pair_of(name, "eager", 0).model)
    generator = torch.Generator().manual_seed(0)
    for count in (3 * config.sliding_window, config.canvas_length, config.canvas_length):
        side.encode(random_tokens(config, count, generator))
    numbers = 0
    for layer in range(config.num_layers):
        visible, heads = config.visible_past(layer), config.attention_shape(layer)
        kept = side.cache.length if visible is None else min(visible, side.cache.length)
        numbers += 2 * kept * heads.num_kv_heads * heads.head_dim
    assert side.cache.num_bytes == 4 * numbers
