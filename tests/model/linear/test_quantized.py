"""Quantized matrices: how far off a weight is, and that what is stored is just what `prepare` makes products of."""

import pytest
import torch
from torch import Tensor

from redraft.model.linear.methods import PackedLinear, PlainLinear, WeightOnlyLinear
from redraft.model.linear.quantized import (
    GROUP,
    Form,
    QuantizedMatrix,
    concat_outputs,
    is_quantized,
    quantized,
    unquantized,
)
from redraft.model.native.linear import KernelLinear
from redraft.model.preparation import prepare
from redraft.model.transformer import Transformer
from tests.fakes.models import tiny_config, tiny_model


def matrix(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(shape, generator=generator) * torch.logspace(-2, 2, shape[-2])[:, None]


def weights(stored: QuantizedMatrix) -> Tensor:
    dense = stored.dense(torch.float32)
    return dense * stored.scale[:, None] if stored.bits == 8 else dense


@pytest.mark.parametrize("inputs", [1, GROUP, GROUP + 3, 3 * GROUP])
def test_8_bits_are_wrong_by_half_a_step(inputs: int) -> None:
    weight = matrix(50, inputs)
    weight[3] = 0
    found = weights(QuantizedMatrix.of(weight, 8))
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((found - weight).abs() <= 0.5001 * step).all())
    assert float(found[3].abs().max()) == 0


@pytest.mark.parametrize("inputs", [1, GROUP, GROUP + 3, 3 * GROUP])
def test_4_bits_are_wrong_by_half_a_step_of_their_group(inputs: int) -> None:
    weight = matrix(50, inputs)
    weight[3] = 0
    found = weights(QuantizedMatrix.of(weight, 4))
    assert found.shape == weight.shape
    padded = torch.nn.functional.pad(weight, (0, -inputs % GROUP)).unflatten(1, (-1, GROUP))
    step = padded.abs().amax(-1, keepdim=True) / 7
    # The scale has 8 bits, which moves a value by 1/256 of itself at most.
    bound = (step * 0.51 + padded.abs() / 256).flatten(1)[:, :inputs]
    assert bool(((found - weight).abs() <= bound).all())
    assert float(found[3].abs().max()) == 0


def test_how_4_bits_are_packed() -> None:
    weight = torch.zeros(1, GROUP)
    weight[0, 0], weight[0, 1], weight[0, GROUP // 2], weight[0, GROUP - 1] = 7, -7, 3, 1
    stored = QuantizedMatrix.of(weight, 4)
    assert stored.scale.tolist() == [[1.0]]
    assert stored.values[0, :2].tolist() == [(8 + 7) | (8 + 3) << 4, (8 - 7) | 8 << 4]
    assert stored.values[0, -1] == 8 | (8 + 1) << 4


@pytest.mark.parametrize("bits", [8, 4])
def test_stacked_ones_are_the_single_ones(bits: int) -> None:
    stack = matrix(3, 20, 70)
    stored = QuantizedMatrix.of(stack, bits)
    form = Form.of(stack.shape, bits)
    assert (tuple(stored.values.shape), stored.values.dtype) == (form.values, form.values_dtype)
    assert (tuple(stored.scale.shape), stored.scale.dtype) == (form.scale, form.scale_dtype)
    assert stored.values.nbytes + stored.scale.nbytes == form.num_bytes
    for one, plain in zip(stored, stack, strict=True):
        alone = QuantizedMatrix.of(plain, bits)
        assert torch.equal(one.values, alone.values)
        assert torch.equal(one.scale, alone.scale)
        assert one.values.data_ptr() in range(stored.values.data_ptr(), stored.values.data_ptr() + stored.values.nbytes)


@pytest.mark.parametrize("bits", [8, 4])
def test_joining_and_rounding_can_be_exchanged(bits: int) -> None:
    parts = [matrix(20, 70), matrix(12, 70)]
    first, second = (
        concat_outputs([QuantizedMatrix.of(one, bits) for one in parts]),
        QuantizedMatrix.of(torch.cat(parts), bits),
    )
    assert isinstance(first, QuantizedMatrix)
    assert torch.equal(first.values, second.values)
    assert torch.equal(first.scale, second.scale)


def test_other_bits_are_refused() -> None:
    stored = QuantizedMatrix.of(matrix(4, 64), 4)
    with pytest.raises(ValueError, match="stored in 4 bits, this precision needs them in 8"):
        quantized(stored, 8)
    with pytest.raises(ValueError, match="stored in 4 bits, this precision needs them unquantized"):
        unquantized(stored)


def test_quantized_are_just_the_products_of_the_prepared_model() -> None:
    # With kernels the rest has other names.
    names = set(Transformer(tiny_config()).state_dict())
    left = set(prepare(tiny_model().bfloat16(), "int4-weight-only", find_kernels=lambda: None).state_dict())
    assert {name for name in names if is_quantized(name)} == names - left
    assert "layers.0.router.proj.weight" in left
    assert "embed_tokens.weight" in left


def test_products_keep_what_is_stored() -> None:
    stored = QuantizedMatrix.of(matrix(4, 64), 4)
    assert WeightOnlyLinear(stored, 4).values.data_ptr() == stored.values.data_ptr()


@pytest.mark.parametrize("product", [PlainLinear, PackedLinear, KernelLinear])
def test_plain_products_refuse_rounded_weights(product: type) -> None:
    more = {"kernels": None} if product is KernelLinear else {}
    with pytest.raises(ValueError, match="stored in 8 bits, this precision needs them unquantized"):
        product(QuantizedMatrix.of(matrix(4, 6, 8), 8), **more)
