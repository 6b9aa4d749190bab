"""Plans: the speed that a device should reach, from a model's shape and the device's peaks alone (a roofline).

A forward takes as long as the slower of its products, FLOPs / peak, and its reads, bytes / bandwidth. Of E experts of
which a token takes k, n tokens touch E · (1 − (1 − k/E)ⁿ) if they choose evenly; touched weights are read once per
forward, the embedding if there is a readout, every request's cache once.

B requests, C canvas length, T cached tokens, D hidden, V vocabulary, H heads, d head size.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from redraft.model.config import ModelConfig
from redraft.weights.sizes import ModelSizes


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device's peaks: products in FLOP/s by how weights are stored, bandwidth in bytes/s, memory in bytes."""

    name: str
    flops: Mapping[str, float]
    bandwidth: float
    memory: float
    source: str
    forward: Callable[[ModelConfig, int, int, int, int], float] | None = None
    """Predicts the seconds of a forward, from model, requests, context, tokens of each request and products with the
    embedding (2 in a step), where that is better known than by a roofline."""


DEVICES = {
    device.name: device
    for device in (
        Device(
            name="h100", flops={"bf16": 989e12, "fp8": 1979e12, "int8": 1979e12, "int4": 989e12}, bandwidth=3.35e12,
            memory=80e9, source="NVIDIA, H100 SXM data sheet, dense",
        ),
        Device(
            name="h200", flops={"bf16": 989e12, "fp8": 1979e12, "int8": 1979e12, "int4": 989e12}, bandwidth=4.8e12,
            memory=141e9, source="NVIDIA, H200 SXM data sheet, dense",
        ),
        Device(
            name="rtx-5090", flops={"bf16": 209.5e12, "fp8": 419e12, "int8": 838e12, "int4": 209.5e12},
            bandwidth=1.792e12, memory=32e9, source="NVIDIA, RTX Blackwell architecture paper, dense",
        ),
        Device(
            name="rtx-4090", flops={"bf16": 165.2e12, "fp8": 330.3e12, "int8": 660.6e12, "int4": 165.2e12},
            bandwidth=1.008e12, memory=24e9, source="NVIDIA, Ada architecture paper, dense",
        ),
    )
}  # fmt: skip
"""int4 saves memory: its products are computed in bf16."""


PUBLISHED = {
    "h100": "1,008 tokens/s (FP8, one request)",
    "h200": "1,288 tokens/s (one request)",
}
"""Published speeds of the 26B-A4B, to compare predictions with; with the precision where it is stated."""


DRAFT_ROWS = 24
"""Tokens of a canvas in mode "verified" (`DraftingPolicy`)."""

KEPT_PER_ROUND = 6.3
"""As measured with the bundled model on its extractions, with one denoiser pass per round."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A prediction for B requests. Seconds are of one forward, tokens per second of all requests together.

    break_even: the tokens per forward above which diffusion is faster than autoregressive decoding; it may be infinite.
    verified_break_even: the tokens kept per round above which verified drafts are.
    """

    denoising_seconds: float
    commit_seconds: float
    autoregressive_seconds: float
    tokens_per_second: float
    autoregressive_tokens_per_second: float
    verified_tokens_per_second: float
    break_even: float
    verified_break_even: float
    weight_bytes: float
    cache_bytes: float
    fits: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the fields for JSON, which has no infinity: a break-even that does not exist is None."""
        fields = dataclasses.asdict(self)
        return fields | {"break_even": None if math.isinf(self.break_even) else self.break_even}


def plan(
    config: ModelConfig,
    device: Device,
    precision: str,
    *,
    requests: int = 1,
    context: int = 1000,
    tokens_per_forward: float,
    kept_per_round: float = KEPT_PER_ROUND,
    passes_per_round: float = 1.0,
    share: float = 1.0,
) -> Plan:
    """Predicts speed: a canvas of C answer tokens takes C / tokens_per_forward steps and one commit.

    A round of verified drafts takes `passes_per_round` denoiser passes over DRAFT_ROWS tokens and a causal pass over
    them, and keeps so many. share: of the peaks that is reached. Raises ValueError for a precision that the device has
    no peak for, and for numbers out of range.
    """
    if precision not in device.flops:
        raise ValueError(f"{device.name} has no peak for {precision!r}; it has {', '.join(device.flops)}")
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}, must lie above 0 and be at most 1")
    canvas = config.canvas_length
    if not 0 < tokens_per_forward <= canvas:
        raise ValueError(f"tokens per forward is {tokens_per_forward}, must lie above 0 and be at most {canvas}")
    if requests < 1 or context < 0:
        raise ValueError(f"{requests} requests with {context} tokens of context: at least 1 and 0 are needed")
    sizes = ModelSizes.of(config)
    weights = float(sizes.weight_bytes[{"bf16": "bfloat16", "fp8": "int8"}.get(precision, precision)])
    caches = float(requests * sizes.kv_bytes(context))

    def seconds(rows: int, readout: int) -> float:
        if device.forward is not None:
            return device.forward(config, requests, context, rows, readout) / share
        flops, read = _forward_work(config, sizes, requests, context, rows, readout)
        moved = read * weights / sizes.parameters + caches
        return max(flops / device.flops[precision], moved / device.bandwidth) / share

    rows = min(DRAFT_ROWS, canvas)
    if not 1 <= kept_per_round <= rows + 1 or passes_per_round < 0:
        raise ValueError(
            f"{kept_per_round} tokens kept of a round with {passes_per_round} denoiser passes: at least 1 and at most "
            f"{rows + 1} tokens, and at least 0 passes are possible"
        )
    denoising, commit, autoregressive = seconds(canvas, 2), seconds(canvas, 0), seconds(1, 1)
    round_seconds = passes_per_round * seconds(rows, 2) + seconds(rows, 1)
    steps = canvas / tokens_per_forward
    # Equal speed: C / (steps · denoising + commit) = 1 / autoregressive.
    free = canvas * autoregressive - commit
    return Plan(
        denoising_seconds=denoising,
        commit_seconds=commit,
        autoregressive_seconds=autoregressive,
        tokens_per_second=requests * canvas / (steps * denoising + commit),
        autoregressive_tokens_per_second=requests / autoregressive,
        verified_tokens_per_second=requests * kept_per_round / round_seconds,
        break_even=canvas * denoising / free if free > 0 else math.inf,
        verified_break_even=round_seconds / autoregressive,
        weight_bytes=weights,
        cache_bytes=caches,
        fits=weights + caches <= device.memory,
    )


def _forward_work(
    config: ModelConfig, sizes: ModelSizes, requests: int, context: int, rows: int, readout: int
) -> tuple[float, float]:
    """Returns the FLOPs of a forward of `rows` tokens of each request, and the number of weights that it reads.

    readout: products with the embedding, 2 in a step.
    """
    tokens = requests * rows
    idle = 0 if readout == 2 else sizes.self_conditioning_parameters
    attention = 0
    for layer in range(config.num_layers):
        past = config.visible_past(layer)
        keys = (context if past is None else min(context, past)) + rows
        attention += 4 * tokens * config.num_heads * config.attention_shape(layer).head_dim * keys
    multiplied = sizes.active_parameters + (readout - 1) * sizes.embedding_parameters - idle
    experts = sum(math.prod(shape) for name, shape in config.parameter_shapes().items() if ".experts." in name)
    untouched = (1 - config.experts_per_token / config.num_experts) ** tokens
    read = sizes.parameters - experts * untouched - idle - (0 if readout else sizes.embedding_parameters)
    return 2 * tokens * multiplied + attention, read
