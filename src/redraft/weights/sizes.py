"""Computes the size of a model and the cost of a step from its config alone, without reading or allocating anything.

V vocabulary, D hidden, C canvas, W window, H heads, d head size, G key-value heads, T cached tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from redraft.model.config import ModelConfig
from redraft.model.linear.quantized import Form, is_quantized
from redraft.model.precision import PRECISIONS, Precision

_EMBEDDING = "embed_tokens.weight"
_EXPERTS = ".experts."
_SELF_CONDITIONING = "self_conditioning."


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """The sizes of a model in parameters and bytes.

    `parameters` counts all tensors of the text model, with buffers, without the vision tower. (26B-A4B has 25.25 B; the
    published 25.2 B leave out `self_conditioning_parameters`, or are truncated.) `active_parameters` are those that one
    canvas token is multiplied with in a denoising step: all but the experts outside the top-k. The embedding counts
    once, for the readout, because looking up a token costs nothing. `weight_bytes` is keyed by precision: "float32",
    "bfloat16", and "int8" and "int4" as in a quantized checkpoint, with the layers' matrices and their scales in 8 or 4
    bits and the rest, mainly the embedding, in 16.
    """

    config: ModelConfig
    parameters: int
    active_parameters: int
    embedding_parameters: int
    self_conditioning_parameters: int
    weight_bytes: Mapping[str, int]

    @classmethod
    def of(cls, config: ModelConfig) -> "ModelSizes":
        shapes = config.parameter_shapes()
        counts = {name: math.prod(shape) for name, shape in shapes.items()}
        experts = sum(count for name, count in counts.items() if _EXPERTS in name)
        total = sum(counts.values())
        return cls(
            config=config,
            parameters=total,
            active_parameters=total - experts + experts * config.experts_per_token // config.num_experts,
            embedding_parameters=counts[_EMBEDDING],
            self_conditioning_parameters=sum(n for name, n in counts.items() if name.startswith(_SELF_CONDITIONING)),
            weight_bytes={precision.stored: _weight_bytes(shapes, precision) for precision in PRECISIONS},
        )

    def kv_bytes_per_1000_tokens(self, bytes_per_value: int = 2) -> int:
        """Returns what 1,000 more tokens of context add to the cache of a request whose sliding layers are full."""
        return 1000 * self._kv_values(sliding=False) * bytes_per_value

    def kv_bytes_sliding(self, bytes_per_value: int = 2) -> int:
        """Returns the maximum size of the sliding layers' cache, which holds W - 1 tokens and does not grow further."""
        return (self.config.sliding_window - 1) * self._kv_values(sliding=True) * bytes_per_value

    def kv_bytes(self, context: int, bytes_per_value: int = 2) -> int:
        """Returns the size of one request's cache after `context` committed tokens."""
        _check_context(context)
        sliding = min(context, self.config.sliding_window - 1) * self._kv_values(sliding=True)
        return (context * self._kv_values(sliding=False) + sliding) * bytes_per_value

    def step_flops(self, context: int) -> int:
        """Returns the floating-point operations of one denoising step of one canvas after `context` cached tokens.

        2·C·(active parameters of layers and self-conditioning) + 4·C·V·D for the readout, which multiplies by the
        embedding twice, + 4·C·H·d·(T + C) per layer for attention, with T at most W - 1 in sliding layers.
        """
        _check_context(context)
        config, c = self.config, self.config.canvas_length
        attention = 0
        for layer in range(config.num_layers):
            past = config.visible_past(layer)
            keys = (context if past is None else min(context, past)) + c
            attention += 4 * c * config.num_heads * config.attention_shape(layer).head_dim * keys
        products = 2 * c * (self.active_parameters - self.embedding_parameters)
        return products + 4 * c * self.embedding_parameters + attention

    def fits(self, memory_bytes: int, context: int = 0) -> dict[str, bool]:
        """Tells by precision whether the weights and one request's cache of `context` tokens fit into memory.

        The cache is in 16 bits, for float32 weights in float32. Activations are not counted, so leave some room.
        """
        return {
            one.stored: self.weight_bytes[one.stored] + self.kv_bytes(context, one.dtype.itemsize) <= memory_bytes
            for one in PRECISIONS
        }

    def _kv_values(self, *, sliding: bool) -> int:
        """Returns the number of values that one token adds to the caches of all layers of a type."""
        shape = self.config.sliding if sliding else self.config.full
        layers = sum(self.config.is_sliding(i) == sliding for i in range(self.config.num_layers))
        return 2 * layers * shape.num_kv_heads * shape.head_dim


def precision_bytes(config: ModelConfig, precision: str) -> int:
    """Returns the size of a prepared model's weights in a precision, in bytes."""
    return ModelSizes.of(config).weight_bytes[Precision.named(precision).stored]


def _weight_bytes(shapes: Mapping[str, tuple[int, ...]], precision: Precision) -> int:
    return sum(
        Form.of(shape, precision.weight_bits).num_bytes
        if precision.is_quantized and is_quantized(name)
        else precision.dtype.itemsize * math.prod(shape)
        for name, shape in shapes.items()
    )


def _check_context(context: int) -> None:
    if context < 0:
        raise ValueError(f"context is {context}, must be at least 0")
