"""Models to measure speed with: two shapes with synthetic weights, which cost what trained ones do, or a checkpoint."""

import torch
from torch import nn

from redraft.api import choose_precision
from redraft.model import AttentionShape, ModelConfig, Precision, Transformer
from redraft.model.config import FULL, SLIDING
from redraft.weights import Checkpoint, check_fits, fetch_config, load_model, read_config, resolve

CONFIGS = {
    "a": ModelConfig(
        vocab_size=8192,
        hidden_size=256,
        num_heads=4,
        layer_types=(SLIDING, SLIDING, SLIDING, FULL) * 2,
        sliding=AttentionShape(head_dim=64, num_kv_heads=2, rope_theta=1e4),
        full=AttentionShape(head_dim=128, num_kv_heads=1, rope_theta=1e6, rotated_fraction=0.25),
        sliding_window=512,
        dense_size=512,
        num_experts=8,
        experts_per_token=2,
        expert_size=128,
        canvas_length=64,
        max_context=32_768,
        eos_ids=(1,),
    ),
    "b": ModelConfig(
        vocab_size=32_768,
        hidden_size=768,
        num_heads=12,
        layer_types=(SLIDING, SLIDING, SLIDING, SLIDING, SLIDING, FULL) * 2,
        sliding=AttentionShape(head_dim=64, num_kv_heads=4, rope_theta=1e4),
        full=AttentionShape(head_dim=128, num_kv_heads=2, rope_theta=1e6, rotated_fraction=0.25),
        sliding_window=512,
        dense_size=1536,
        num_experts=16,
        experts_per_token=4,
        expert_size=408,
        canvas_length=256,
        max_context=32_768,
        eos_ids=(1,),
    ),
}
"""About 14 M and 270 M parameters: one that fits a cache, one that does not."""


def synthetic(config: ModelConfig, dtype: torch.dtype, seed: int = 0) -> Transformer:
    """A model with random weights that keep activations of size one: products cost the same whatever they hold."""
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
    return model.to(dtype).eval().requires_grad_(False)


def subject(name: str, precision: str, *, whole: bool = False) -> Transformer:
    """The model to measure: "a" or "b" with synthetic weights, or any checkpoint; in the precision's base dtype.

    It is not prepared yet. `whole`: its weights are to be saved again. ValueError for an unknown precision, and before
    any weights are read for a checkpoint that is not there, does not have that precision, is quantized though it is to
    be whole, or does not fit into memory.
    """
    dtype = Precision.named(precision).dtype
    if name in CONFIGS:
        return synthetic(CONFIGS[name], dtype)
    checkpoint = Checkpoint.open(resolve(name))
    if whole:
        checkpoint.check_unquantized()
    check_fits(checkpoint, choose_precision(checkpoint, torch.device("cpu"), precision))
    return load_model(checkpoint, dtype=dtype)


def subject_config(name: str) -> ModelConfig:
    """The shape of what `subject` loads; of a model on the hub nothing but its configuration is fetched."""
    return CONFIGS[name] if name in CONFIGS else read_config(fetch_config(name))
