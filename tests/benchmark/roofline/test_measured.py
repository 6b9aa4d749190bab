"""A plan for this machine: its parts, against made-up costs; what is measured is only said to be there."""

import pytest

from redraft.benchmark.roofline.ceiling import forward_products
from redraft.benchmark.roofline.measured import MAX_ROWS, MeasuredRoofline, measure_roofline
from redraft.benchmark.roofline.plan import plan
from tests.fakes.models import tiny_config


class Priced(MeasuredRoofline):
    """Every product takes a second."""

    def product_seconds(self, product):
        return 1.0


def costs(**changes) -> MeasuredRoofline:
    free = {"precision": "float32", "bytes_per_weight": 4.0, "op": 0.0, "element": 0.0, "bandwidth": 1e30}
    return Priced(**free | changes)


def test_a_forward_is_its_products_its_operations_and_its_passes():
    config = tiny_config()
    count = sum(forward_products(config, 2, 5).values())
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
    roofline = MeasuredRoofline("float32", 4.0, 0.0, 0.0, 1e30)
    small, large = (next(iter(forward_products(tiny_config(), n, 0))) for n in (MAX_ROWS // 8, MAX_ROWS // 2))
    assert small.rows == MAX_ROWS
    assert roofline.product_seconds(large) == pytest.approx(4 * roofline.product_seconds(small))


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
def test_this_machine_is_a_device(precision):
    device = measure_roofline(precision)
    assert device.flops[precision] > 0
    assert device.bandwidth > 0
    found = plan(tiny_config(), device, precision, tokens_per_forward=2, context=5)
    assert found.commit_seconds > 0
    assert 0 < found.denoising_seconds < 1
    half = plan(tiny_config(), device, precision, tokens_per_forward=2, context=5, share=0.5)
    assert half.denoising_seconds == pytest.approx(2 * found.denoising_seconds)


def test_a_precision_without_products_of_its_own_is_refused():
    with pytest.raises(ValueError, match="precision is 'fp8'; for this machine it must be one of float32, bf16, int8"):
        measure_roofline("fp8")
