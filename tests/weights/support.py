"""Small checkpoints for the tests of the weights: made by us, and made by transformers."""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.model.config import AttentionShape, ModelConfig
from redraft.model.transformer import Transformer
from redraft.weights.save import save_checkpoint
from tests.fakes import models

LAYERS = ("sliding_attention", "full_attention", "sliding_attention", "full_attention")
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
VISION_NAME = "model.encoder.vision_tower.std_bias"


def tiny_config(**changes: Any) -> ModelConfig:
    """The tests' tiny configuration with layers of alternating types, wider matrices and two EOS ids."""
    sizes: dict[str, Any] = {
        "vocab_size": 101,
        "hidden_size": 48,
        "layer_types": LAYERS,
        "dense_size": 64,
        "num_experts": 6,
        "expert_size": 24,
        "max_context": 1000,
        "eos_ids": (1, 7),
    }
    return models.tiny_config(**(sizes | changes))


def released_config() -> ModelConfig:
    """26B-A4B."""
    return ModelConfig(
        vocab_size=262_144,
        hidden_size=2816,
        num_heads=16,
        layer_types=(("sliding_attention",) * 5 + ("full_attention",)) * 5,
        sliding=AttentionShape(head_dim=256, num_kv_heads=8, rope_theta=1e4),
        full=AttentionShape(head_dim=512, num_kv_heads=2, rope_theta=1e6, rotated_fraction=0.25),
        sliding_window=1024,
        dense_size=2112,
        num_experts=128,
        experts_per_token=8,
        expert_size=704,
        canvas_length=256,
        max_context=262_144,
        eos_ids=(1, 106, 50),
    )


def weights(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = dict(config.parameter_shapes())
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_tiny(folder: Path, *, seed: int = 0, **changes: Any) -> dict[str, Tensor]:
    """A checkpoint of the tiny config in one file; returns what was written."""
    config = tiny_config(**changes)
    state = weights(config, seed)
    save_checkpoint(folder, config, state)
    return state


def read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text())
    assert isinstance(value, dict)
    return value


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(read_json(path) | changes))


def split_file(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_file(path: Path, header: object, data: bytes) -> None:
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def add_tensor(path: Path, name: str, values: bytes, dtype: str = "F32", shape: tuple[int, ...] | None = None) -> None:
    """Appends a tensor to a safetensors file."""
    header, data = split_file(path)
    shape = (len(values) // 4,) if shape is None else shape
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
    join_file(path, header, data + values)


@torch.no_grad()
def logits(model: Transformer, prompt: Tensor, canvas: Tensor) -> tuple[Tensor, Tensor]:
    """Denoiser logits [C, V] of the first and, self-conditioned on it, of the second step after `prompt`."""
    caches = model.run(FlatBatch.single(prompt, 0, Pass.ENCODER), [KVCache(model.config)]).caches
    found: list[Tensor] = []
    for soft in (lambda: None, lambda: model.head.soft_embedding(found[0])):
        batch = FlatBatch.single(canvas, prompt.shape[0], Pass.DENOISER, soft_embedding=soft())
        found.append(model.head.logits(model.run(batch, caches).hidden))
    return found[0], found[1]
