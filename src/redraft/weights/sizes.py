"""How large a model is and what a step of it costs, from its config alone: no data are read, nothing is allocated.

V vocabulary, D hidden, C canvas, W window, H heads, d head size, G key-value heads, T cached tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from redraft.model import PRECISIONS, ModelConfig, Precision
from redraft.model.linear.quantized import Form, is_quantized

_EMBEDDING = "embed_tokens.weight"
_EXPERTS = ".experts."
_SELF_CONDITIONING = "self_conditioning."


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Sizes in parameters and bytes.

    `parameters` are all tensors of the text model, buffers included, vision excluded. (26B-A4B has 25.25 B; the 25.2 B
    it is said to have are those without `self_conditioning_parameters`, or cut instead of rounded.)
    `active_parameters` are those that one canvas token is multiplied with in a denoising step: all, but of the experts
    only the top-k; the embedding counts once, as the readout (looking a token up costs nothing). `weight_bytes` is by
    precision: "float32", "bfloat16", and "int8", "int4" as a quantized checkpoint has them: the layers' matrices with
    their scales in so many bits, and the rest, the embedding above all, in 16.
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
        """What 1,000 further tokens of context add to one request's cache, once the sliding layers are full."""
        return 1000 * self._kv_values(sliding=False) * bytes_per_value

    def kv_bytes_sliding(self, bytes_per_value: int = 2) -> int:
        """What the sliding layers hold at most, of W - 1 tokens: the part of a cache that does not grow."""
        return (self.config.sliding_window - 1) * self._kv_values(sliding=True) * bytes_per_value

    def kv_bytes(self, context: int, bytes_per_value: int = 2) -> int:
        """One request's cache after `context` committed tokens."""
        _check_context(context)
        sliding = min(context, self.config.sliding_window - 1) * self._kv_values(sliding=True)
        return (context * self._kv_values(sliding=False) + sliding) * bytes_per_value

    def step_flops(self, context: int) -> int:
        """Floating-point operations of one denoising step of one canvas after `context` cached tokens.

        2·C·(active parameters of layers and self-conditioning) + 4·C·V·D for the readout, which multiplies with the
        embedding twice + 4·C·H·d·(T + C) per layer for attention, with T at most W - 1 in sliding layers.
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
        """By precision, whether weights and one request's cache of `context` tokens (16 bits, float32 for float32) fit.

        What a forward needs besides is not counted; leave some room.
        """
        return {
            one.stored: self.weight_bytes[one.stored] + self.kv_bytes(context, one.dtype.itemsize) <= memory_bytes
            for one in PRECISIONS
        }

    def _kv_values(self, *, sliding: bool) -> int:
        """Keys and values that one token leaves in all layers of a type."""
        shape = self.config.sliding if sliding else self.config.full
        layers = sum(self.config.is_sliding(i) == sliding for i in range(self.config.num_layers))
        return 2 * layers * shape.num_kv_heads * shape.head_dim


def precision_bytes(config: ModelConfig, precision: str) -> int:
    """Bytes of a model's weights as `prepare` leaves them in a precision."""
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
