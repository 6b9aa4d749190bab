"""The products of a step, against the FLOPs that sizes count, and how they are timed."""

from collections import Counter

import pytest
import torch

from redraft.benchmark.roofline.ceiling import Ceiling, Product, count_flops, forward_products, implementations
from redraft.weights.sizes import ModelSizes
from tests.fakes.models import tiny_config


@pytest.mark.parametrize("context", [0, 3, 40])
@pytest.mark.parametrize("batch", [1, 4])
def test_they_are_all_of_a_steps_flops(batch, context):
    config = tiny_config()
    found = count_flops(forward_products(config, batch, context))
    # What sizes count beside them: norms, scalars and the router, each once for every token.
    sizes = ModelSizes.of(config)
    vectors = sum(
        torch.Size(shape).numel()
        for name, shape in config.parameter_shapes().items()
        if len(shape) < 2 or ".router." in name
    )
    assert found == batch * (sizes.step_flops(context) - 2 * config.canvas_length * vectors)


def test_a_commit_and_a_token_have_no_readout_of_a_step():
    config = tiny_config()
    step, commit = forward_products(config, 2, 5), forward_products(config, 2, 5, readout=0)
    vocab = [one for one in step if config.vocab_size in (one.inputs, one.outputs)]
    assert len(vocab) == 2
    assert not set(vocab) & set(commit)
    token = forward_products(config, 3, 5, tokens=1, readout=1)
    assert sum(times for one, times in token.items() if one.outputs == config.vocab_size) == 1
    assert {one.rows for one in token if one.layer} <= {1, 3}


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8", "int8-weight-only"])
def test_every_way_multiplies_in_the_precision(precision):
    for product in (Product(16, 32, 24, layer=True), Product(16, 32, 24), Product(16, 8, 24, count=2)):
        shape = (2, 16, 24) if product.count > 1 else (16, 24)
        for run in implementations(product, precision):
            result = run()
            assert result.shape == shape
            integers = precision == "int8" and product.layer
            assert result.dtype == (
                torch.int32 if integers else torch.float32 if precision == "float32" else torch.bfloat16
            )


def test_rounds_are_sums_over_all_products_of_the_faster_way():
    shapes = Counter({Product(8, 16, 16, layer=True): 3, Product(8, 16, 32): 2})
    ceiling = Ceiling(shapes, "float32")
    measured = [ceiling.measure() for _ in range(4)]
    assert {product: len(seconds) for product, seconds in measured[0].items()} == {
        product: len(implementations(product, "float32")) for product in shapes
    }
    first, second = shapes
    rounds = [{first: (1.0, 9.0), second: (5.0, 2.0)}, {first: (3.0, 0.5), second: (5.0, 4.0)}]
    assert ceiling.seconds(rounds) == [3 * 1 + 2 * 2, 3 * 3 + 2 * 4]
