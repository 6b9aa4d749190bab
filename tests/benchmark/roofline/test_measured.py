"""A plan for this machine: its parts, against made-up costs; what is measured is only said to be there."""

import pytest

from redraft.benchmark.roofline.ceiling import products
from redraft.benchmark.roofline.measured import MOST_ROWS, Here, measure_here
from redraft.benchmark.roofline.plan import plan
from tests.fakes.models import tiny_config


class Priced(Here):
    """Every product takes a second."""

    def _seconds(self, product):
        return 1.0


def costs(**changes) -> Here:
    free = {"precision": "float32", "bytes_per_weight": 4.0, "op": 0.0, "element": 0.0, "bandwidth": 1e30}
    return Priced(**free | changes)


def test_a_forward_is_its_products_its_operations_and_its_passes():
    config = tiny_config()
    count = sum(products(config, 2, 5).values())
    assert costs()(config, 2, 5, config.canvas_length, 2) == count
    assert costs(op=1.0)(config, 2, 5, config.canvas_length, 2) > count + config.num_layers * 20
    twice = costs(element=2.0)(config, 2, 5, config.canvas_length, 2) - count
    assert twice == pytest.approx(2 * (costs(element=1.0)(config, 2, 5, config.canvas_length, 2) - count))
    # The readout's passes belong to a denoising step alone.
    assert costs(element=1.0)(config, 2, 5, 8, 1) < costs(element=1.0)(config, 2, 5, 8, 2)


def test_where_reading_takes_longer_it_is_the_weights_that_are_used():
    config = tiny_config()
    slow = costs(bandwidth=1e-3)
    assert slow(config, 1, 5, 1, 1) < slow(config, 1, 5, 8, 1)
    assert slow(config, 4, 5, 8, 0) < slow(config, 4, 5, 8, 2)


def test_products_beyond_the_largest_timed_take_as_much_longer():
    here = Here("float32", 4.0, 0.0, 0.0, 1e30)
    small, large = (next(iter(products(tiny_config(), n, 0))) for n in (MOST_ROWS // 8, MOST_ROWS // 2))
    assert small.rows == MOST_ROWS
    assert here._seconds(large) == pytest.approx(4 * here._seconds(small))


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
def test_this_machine_is_a_device(precision):
    device = measure_here(precision)
    assert device.flops[precision] > 0
    assert device.bandwidth > 0
    found = plan(tiny_config(), device, precision, tokens_per_forward=2, context=5)
    assert found.commit_seconds > 0
    assert 0 < found.denoising_seconds < 1
    half = plan(tiny_config(), device, precision, tokens_per_forward=2, context=5, share=0.5)
    assert half.denoising_seconds == pytest.approx(2 * found.denoising_seconds)


def test_a_precision_without_products_of_its_own_is_refused():
    with pytest.raises(ValueError, match="precision is 'fp8'; for this machine it must be one of float32, bf16, int8"):
        measure_here("fp8")
