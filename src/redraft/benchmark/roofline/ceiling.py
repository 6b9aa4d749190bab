"""The ceiling of a denoising step: its matrix products alone, one after the other, on this machine.

B canvases, C tokens each, T cached tokens; n rows, I inputs, O outputs.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.benchmark.steps import STAGES, Step
from redraft.benchmark.timing import Spread, alternate, ratio, seconds_of
from redraft.model.config import ModelConfig
from redraft.model.linear.methods import PackedLinear, has_onednn
from redraft.model.native.build import load_kernels
from redraft.model.native.linear import KernelLinear
from redraft.model.precision import Precision

REPEAT_SECONDS = 1e-3
"""How long a product is repeated: once may be too short for the clock."""
MAX_REPEATS = 50


@dataclass(frozen=True)
class Product:
    """A matrix product [n, I] × [I, O], or `count` of them at once (attention's heads). layer: by a weight."""

    rows: int
    inputs: int
    outputs: int
    count: int = 1
    layer: bool = False

    @property
    def flops(self) -> int:
        return 2 * self.count * self.rows * self.inputs * self.outputs


def forward_products(
    config: ModelConfig, batch: int, context: int, *, tokens: int | None = None, readout: int = 2
) -> Counter[Product]:
    """Counts the products of a forward of `tokens` (by default a canvas) of each of B requests.

    readout: how often the embedding is multiplied with, 2 in a denoising step, whose self-conditioning is counted then
    too. Experts are counted as if tokens chose them evenly; fused products (queries, keys and values) count as one.
    """
    canvas = tokens or config.canvas_length
    n, d = batch * canvas, config.hidden_size
    found: Counter[Product] = Counter()

    def layer(rows: int, inputs: int, outputs: int, times: int = 1) -> None:
        found[Product(rows, inputs, outputs, layer=True)] += times

    share = max(1, n * config.experts_per_token // config.num_experts)
    used = min(config.num_experts, n * config.experts_per_token)
    for index in range(config.num_layers):
        shape = config.attention_shape(index)
        projections = config.num_heads + (2 if config.is_sliding(index) else 1) * shape.num_kv_heads
        layer(n, d, projections * shape.head_dim)
        layer(n, config.num_heads * shape.head_dim, d)
        past = config.visible_past(index)
        keys = (context if past is None else min(context, past)) + canvas
        queries = config.num_heads // shape.num_kv_heads * canvas
        found[Product(queries, shape.head_dim, keys, count=shape.num_kv_heads)] += batch
        found[Product(queries, keys, shape.head_dim, count=shape.num_kv_heads)] += batch
        layer(share, d, 2 * config.expert_size, used)
        layer(share, config.expert_size, d, used)
    # The dense branch of each layer, and self-conditioning.
    dense = config.num_layers + (readout == 2)
    layer(n, d, 2 * config.dense_size, dense)
    layer(n, config.dense_size, d, dense)
    if readout:
        found[Product(n, d, config.vocab_size)] += 1
    if readout == 2:
        found[Product(n, config.vocab_size, d)] += 1
    return found


def count_flops(shapes: Mapping[Product, int]) -> int:
    return sum(product.flops * times for product, times in shapes.items())


class Ceiling:
    """A timer of products in a precision, each by all its implementations: plain weights, packed ones, our own kernel.

    A product's weights are in the CPU's cache if they fit; those of a whole model may not be.
    """

    def __init__(self, products: Mapping[Product, int], precision: str) -> None:
        self._products = products
        self._runs = {product: implementations(product, precision) for product in products}
        self._repeats = dict.fromkeys(products, 1)
        # Once to warm up, and again to choose how often to repeat.
        self.measure()
        for product, seconds in self.measure().items():
            self._repeats[product] = max(1, min(MAX_REPEATS, int(REPEAT_SECONDS / min(seconds))))

    @torch.inference_mode()
    def measure(self) -> dict[Product, list[float]]:
        """Times all products once; returns the seconds of each by each of its implementations."""
        return {
            product: [seconds_of(run, self._repeats[product]) for run in runs] for product, runs in self._runs.items()
        }

    def seconds(self, rounds: Sequence[Mapping[Product, Sequence[float]]]) -> list[float]:
        """Returns the seconds of all products of a step in each round, by the fastest implementations."""
        totals = [0.0] * len(rounds)
        for product, times in self._products.items():
            best = min(zip(*(one[product] for one in rounds), strict=True), key=statistics.median)
            totals = [total + times * seconds for total, seconds in zip(totals, best, strict=True)]
        return totals


def implementations(product: Product, precision: str) -> list[Callable[[], Tensor]]:
    """Returns a product's implementations in `precision`, on random numbers. Raises ValueError for an unknown one."""
    chosen = Precision.named(precision)
    dtype = chosen.dtype
    n, i, o = product.rows, product.inputs, product.outputs
    if product.count > 1:
        x, y = torch.randn(product.count, n, i).to(dtype), torch.randn(product.count, i, o).to(dtype)
        return [lambda: torch.bmm(x, y)]
    if chosen.is_integer and product.layer:
        a = torch.randint(-127, 128, (n, i), dtype=torch.int8)
        b = torch.randint(-127, 128, (o, i), dtype=torch.int8)
        c = b.t().contiguous()
        return [lambda: torch._int_mm(a, b.t()), lambda: torch._int_mm(a, c)]
    x, weight = torch.randn(n, i).to(dtype), torch.randn(o, i).to(dtype)
    found: list[Callable[[], Tensor]] = [lambda: F.linear(x, weight)]
    if has_onednn(weight.device, dtype):
        packed = PackedLinear(weight)
        found.append(lambda: packed(x))
    kernels = load_kernels()
    if kernels is not None and kernels.has_multiply(dtype, i):
        own = KernelLinear(weight, kernels=kernels)
        found.append(lambda: own(x))
    return found


@dataclass(frozen=True)
class StepMeasurement:
    """A step's seconds by stage and whole ("step"), its GFLOP, the GFLOP/s reached and possible, and their ratio."""

    seconds: dict[str, Spread]
    gflop: float
    gflops: Spread
    ceiling_gflops: Spread
    share: Spread


def measure_step(step: Step, precision: str, rounds: int) -> StepMeasurement:
    products = forward_products(step.model.config, step.batch, step.context)
    ceiling, gflop = Ceiling(products, precision), count_flops(products) / 1e9
    stages: list[dict[str, float]] = []
    timed: list[dict[Product, list[float]]] = []
    alternate(rounds, lambda: stages.append(step.stages()), lambda: timed.append(ceiling.measure()))
    # The round that warms up is not counted.
    stages, alone = stages[1:], ceiling.seconds(timed[1:])
    whole = [one["step"] for one in stages]
    return StepMeasurement(
        seconds={name: Spread.of([one[name] for one in stages]) for name in (*STAGES, "step")},
        gflop=gflop,
        gflops=Spread.of([gflop / one for one in whole]),
        ceiling_gflops=Spread.of([gflop / one for one in alone]),
        share=ratio(alone, whole),
    )
