"""The models of a benchmark: two shapes with synthetic weights, which cost what trained ones do, or a checkpoint."""

import torch
from torch import nn

from redraft.model.config import FULL, SLIDING, AttentionShape, ModelConfig
from redraft.model.precision import Precision
from redraft.model.transformer import Transformer
from redraft.weights.checkpoint import Checkpoint, load_model
from redraft.weights.config.file import read_config
from redraft.weights.fetch import fetch_config, resolve
from redraft.weights.memory import check_fits
from redraft.weights.placement import choose_precision

CONFIGS = {
    "a": ModelConfig(
        vocab_size=8192, hidden_size=256, num_heads=4, layer_types=(SLIDING, SLIDING, SLIDING, FULL) * 2,
        sliding=AttentionShape(head_dim=64, num_kv_heads=2, rope_theta=1e4),
        full=AttentionShape(head_dim=128, num_kv_heads=1, rope_theta=1e6, rotated_fraction=0.25), sliding_window=512,
        dense_size=512, num_experts=8, experts_per_token=2, expert_size=128, canvas_length=64, max_context=32_768,
        eos_ids=(1,),
    ),
    "b": ModelConfig(
        vocab_size=32_768, hidden_size=768, num_heads=12, layer_types=(*[SLIDING] * 5, FULL) * 2,
        sliding=AttentionShape(head_dim=64, num_kv_heads=4, rope_theta=1e4),
        full=AttentionShape(head_dim=128, num_kv_heads=2, rope_theta=1e6, rotated_fraction=0.25), sliding_window=512,
        dense_size=1536, num_experts=16, experts_per_token=4, expert_size=408, canvas_length=256, max_context=32_768,
        eos_ids=(1,),
    ),
}  # fmt: skip
"""About 14 M and 270 M parameters: one fits a CPU's cache, the other does not."""


def synthetic_model(config: ModelConfig, dtype: torch.dtype, seed: int = 0) -> Transformer:
    """Returns a model with random weights that keep activations near one: products cost the same for any numbers."""
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
    return model.to(dtype).eval().requires_grad_(False)


def load_benchmark_model(name: str, precision: str, *, unquantized: bool = False) -> Transformer:
    """Loads "a" or "b" with synthetic weights, or any checkpoint, in the precision's compute dtype, not prepared yet.

    unquantized: for weights that will be saved again. Raises ValueError for an unknown precision and, before weights
    are read, for a checkpoint that is missing, does not have that precision, is quantized though it must not be, or
    does not fit into memory.
    """
    dtype = Precision.named(precision).dtype
    if name in CONFIGS:
        return synthetic_model(CONFIGS[name], dtype)
    checkpoint = Checkpoint.open(resolve(name))
    if unquantized:
        checkpoint.check_unquantized()
    check_fits(checkpoint, choose_precision(checkpoint, torch.device("cpu"), precision))
    return load_model(checkpoint, dtype=dtype)


def benchmark_config(name: str) -> ModelConfig:
    """Returns the configuration of a model for `load_benchmark_model`, without fetching its weights."""
    return CONFIGS[name] if name in CONFIGS else read_config(fetch_config(name))
