"""The share of its ceiling that a denoising step reaches."""

from dataclasses import dataclass

from redraft.benchmark.roofline.ceiling import Ceiling, count_flops, forward_products
from redraft.benchmark.steps import STAGES, Step
from redraft.benchmark.timing import Spread, ratio


@dataclass(frozen=True)
class StepMeasurement:
    """A step's seconds by stage and whole ("step"), its GFLOP, the GFLOP/s reached and possible, and their ratio."""

    seconds: dict[str, Spread]
    gflop: float
    gflops: Spread
    ceiling_gflops: Spread
    share: Spread


def measure_step(step: Step, precision: str, rounds: int) -> StepMeasurement:
    """Measures a step and its products alone, alternating, so that both meet the same machine."""
    products = forward_products(step.model.config, step.batch, step.context)
    ceiling = Ceiling(products, precision)
    step.stages()
    stages = []
    for _ in range(rounds):
        stages.append(step.stages())
        ceiling.measure()
    gflop, alone = count_flops(products) / 1e9, ceiling.seconds()
    whole = [one["step"] for one in stages]
    return StepMeasurement(
        seconds={name: Spread.of([one[name] for one in stages]) for name in (*STAGES, "step")},
        gflop=gflop,
        gflops=Spread.of([gflop / one for one in whole]),
        ceiling_gflops=Spread.of([gflop / one for one in alone]),
        share=ratio(alone, whole),
    )
