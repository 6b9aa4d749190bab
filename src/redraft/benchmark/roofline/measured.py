"""The measured roofline: this machine as a device of a plan, timed for a model's shape before weights are loaded.

A forward's time is the sum of its products, each timed alone (or of the reading of its weights, if that takes longer),
of its operations, each with the fixed cost of one, and of its elementwise passes.

The numbers of operations and passes were counted, and fitted where they cannot be counted, with this package's own step
on one machine (docs/speed.md has predictions beside measurements). Products are timed with at most MAX_ROWS rows and
MAX_WIDTH outputs or inputs; the time of larger ones is scaled by their FLOPs.

N tokens, D hidden, V vocabulary, B requests.
"""

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from redraft.benchmark.roofline.ceiling import Ceiling, Product, forward_products
from redraft.benchmark.roofline.plan import Device
from redraft.benchmark.timing import seconds_of
from redraft.model.config import ModelConfig
from redraft.model.native.build import load_kernels
from redraft.model.precision import PRECISIONS
from redraft.model.readout.classes import TILE
from redraft.model.readout.streamed import KERNEL_STREAM_ROWS, STREAM_ROWS
from redraft.weights.memory import machine_memory

MAX_ROWS, MAX_WIDTH = 512, 8192


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The operations of a forward beside its products, and its passes over [N, D] and [N, V], in units of a `tanh`."""

    layer_ops: float  # without its experts
    canvas_ops: float  # of each further request in a layer
    expert_ops: float
    readout_ops: float
    tile_ops: float  # of TILE tokens for row_block rows
    row_block: int
    layer_passes: float
    readout_passes: float


WITH_TORCH = Costs(
    layer_ops=160, canvas_ops=12, expert_ops=8, readout_ops=90, tile_ops=46, row_block=STREAM_ROWS, layer_passes=17,
    readout_passes=4.5,
)  # fmt: skip
WITH_KERNELS = Costs(
    layer_ops=30, canvas_ops=1, expert_ops=0, readout_ops=60, tile_ops=4, row_block=KERNEL_STREAM_ROWS, layer_passes=4,
    readout_passes=0.4,
)  # fmt: skip
ROUNDS = 5


@dataclass
class MeasuredRoofline:
    """A roofline of measured seconds: of an operation, an element of a pass and each product; bandwidth in bytes/s."""

    precision: str
    bytes_per_weight: float
    op: float
    element: float
    bandwidth: float
    _products: dict[Product, float] = field(default_factory=dict)

    def __call__(self, config: ModelConfig, requests: int, context: int, tokens: int, readout: int) -> float:
        """Predicts the seconds of a forward, as `Device.forward`."""
        rows = requests * tokens
        needed = forward_products(config, requests, context, tokens=tokens, readout=readout)
        multiplying = sum(times * self.product_seconds(product) for product, times in needed.items())
        # Only weights of this forward's products are read.
        read = sum(times * one.inputs * one.outputs for one, times in needed.items() if one.count == 1)
        used = min(config.num_experts, rows * config.experts_per_token)
        costs = WITH_TORCH if load_kernels() is None else WITH_KERNELS
        ops = config.num_layers * (costs.layer_ops + costs.canvas_ops * (requests - 1) + costs.expert_ops * used)
        elements = costs.layer_passes * config.num_layers * rows * config.hidden_size
        if readout == 2:
            ops += costs.readout_ops + costs.tile_ops * -(-config.vocab_size // TILE) * -(-rows // costs.row_block)
            elements += costs.readout_passes * rows * config.vocab_size
        reading = read * self.bytes_per_weight / self.bandwidth
        return max(multiplying, reading) + ops * self.op + elements * self.element

    def product_seconds(self, product: Product) -> float:
        """Returns a product's seconds, timed when first asked for."""
        small = Product(
            min(product.rows, MAX_ROWS), min(product.inputs, MAX_WIDTH), min(product.outputs, MAX_WIDTH),
            product.count, product.layer,
        )  # fmt: skip
        if small not in self._products:
            ceiling = Ceiling(Counter([small]), self.precision)
            self._products[small] = statistics.median(ceiling.seconds([ceiling.measure() for _ in range(ROUNDS)]))
        return self._products[small] * product.flops / small.flops


WEIGHT_BYTES = {one.name: one.weight_bits / 8 for one in PRECISIONS if not one.is_weight_only}
"""The precisions of a plan for this machine."""


def measure_roofline(precision: str) -> Device:
    """Measures this machine in less than a second; products are timed when a plan first needs them.

    Raises ValueError for a precision other than float32, bf16 and int8.
    """
    if precision not in WEIGHT_BYTES:
        raise ValueError(f"precision is {precision!r}; for this machine it must be one of {', '.join(WEIGHT_BYTES)}")
    small, tile, large = torch.ones(8, 64), torch.randn(128, TILE), torch.ones(2**25)
    op = _median(lambda: small.add(small), 2000)
    element = _median(lambda: tile.tanh(), 50) / tile.numel()
    bandwidth = large.numel() * large.element_size() / _median(lambda: large.sum(), 3)
    roofline = MeasuredRoofline(precision, WEIGHT_BYTES[precision], op * OP_WEIGHT, element, bandwidth)
    square = Product(MAX_ROWS, 1024, 1024, layer=True)
    peak = square.flops / roofline.product_seconds(square)
    return Device(
        name="here", flops={precision: peak}, bandwidth=bandwidth, memory=float(machine_memory().total),
        source="measured just now", forward=roofline,
    )  # fmt: skip


OP_WEIGHT = 4.0
"""The mean cost of a forward's operations, in units of adding two small tensors."""


def _median(run: Callable[[], object], repeats: int) -> float:
    run()
    return statistics.median(seconds_of(run, repeats) for _ in range(ROUNDS))
