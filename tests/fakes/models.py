"""A tiny Transformer with deterministic random weights: every part of the real one, in a few milliseconds."""

import dataclasses
from typing import Any

import torch
from torch import nn

from redraft.model.cache import KVCache
from redraft.model.config import FULL, SLIDING, AttentionShape, ModelConfig
from redraft.model.transformer import Transformer


def tiny_config(**changes: Any) -> ModelConfig:
    """Three layers, two of them sliding over 5 tokens; changes are fields of ModelConfig."""
    config = ModelConfig(
        vocab_size=61,
        hidden_size=32,
        num_heads=4,
        layer_types=(SLIDING, SLIDING, FULL),
        sliding=AttentionShape(head_dim=8, num_kv_heads=2, rope_theta=1e4),
        full=AttentionShape(head_dim=16, num_kv_heads=1, rope_theta=1e6, rotated_fraction=0.25),
        sliding_window=5,
        dense_size=48,
        num_experts=4,
        experts_per_token=2,
        expert_size=16,
        canvas_length=8,
        max_context=64,
        eos_ids=(1,),
    )
    return dataclasses.replace(config, **changes)


def tiny_model(seed: int = 0, *, peak: float = 3.0, mixing: float = 0.3, **changes: Any) -> Transformer:
    """Random weights from `seed`; norms, scales and both kinds of layer scalar are random too, so none can be left out.

    `peak` is about the standard deviation of the logits, `mixing` the size of a branch beside the residual. With these
    defaults some positions of a canvas are sure at once and others need several denoising steps, as in a trained model.
    """
    model = Transformer(tiny_config(**changes))
    generator = torch.Generator().manual_seed(seed)

    def around_one(tensor: torch.Tensor) -> None:
        tensor.copy_(0.7 + 0.6 * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                around_one(parameter)
            else:
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
        for buffer in model.buffers():
            around_one(buffer)
        for name, parameter in model.named_parameters():
            if name.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")):
                parameter.mul_(mixing)
            elif name == "norm.weight":
                parameter.mul_(peak)
    return model.eval()


def broken_cache(config: ModelConfig, cache: KVCache) -> KVCache:
    """A cache like the one given, with keys that are no numbers."""
    broken = KVCache(config)
    for layer in range(config.num_layers):
        keys, values = cache.content(layer)
        assert keys is not None
        assert values is not None
        broken.append(layer, torch.full_like(keys, torch.nan), values)
    broken.advance(cache.length)
    return broken
