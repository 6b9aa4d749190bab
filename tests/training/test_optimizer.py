"""The optimizer: its AdamW against torch's, its Muon against a singular value decomposition."""

import pytest
import torch
from torch import nn

from redraft.training.optimizer import MuonAdamW, orthogonalize


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(parameters: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_without_matrices_it_is_adamw(decay):
    ours, theirs = parameters((3, 5), (7,), ()), parameters((3, 5), (7,), ())
    mine = MuonAdamW([{"params": ours, "lr": 0.02, "weight_decay": decay, "betas": (0.9, 0.98)}])
    reference = torch.optim.AdamW(theirs, lr=0.02, weight_decay=decay, betas=(0.9, 0.98))
    for step in range(5):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        mine.step()
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 40), (2, 40, 16)])
def test_orthogonalize_keeps_directions_and_evens_their_sizes(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    found = left.mT @ orthogonalize(matrices).float() @ right.mT
    sizes = found.diagonal(dim1=-2, dim2=-1)
    # The smallest directions of a square matrix are brought up last.
    assert (sizes[values > 0.05 * values.amax()] > 0.5).all()
    assert (sizes < 1.3).all()
    off = found - torch.diag_embed(sizes)
    assert off.abs().max() < 0.1


def test_a_stack_of_matrices_moves_as_each_would_alone():
    (stack,) = parameters((4, 6, 10))
    singles = [nn.Parameter(matrix.clone()) for matrix in stack.detach()]
    together = MuonAdamW([{"params": [stack], "lr": 0.1, "weight_decay": 0.2, "muon": True}])
    alone = [MuonAdamW([{"params": [one], "lr": 0.1, "weight_decay": 0.2, "muon": True}]) for one in singles]
    for step in range(3):
        give_gradients([stack], step)
        for single, gradient in zip(singles, stack.grad, strict=True):
            single.grad = gradient.clone()
        together.step()
        for optimizer in alone:
            optimizer.step()
    torch.testing.assert_close(stack.detach(), torch.stack([single.detach() for single in singles]))


def test_momentum_looks_ahead():
    (matrix,) = parameters((6, 10))
    expected, momentum = matrix.detach().clone(), torch.zeros(6, 10)
    optimizer = MuonAdamW([{"params": [matrix], "lr": 0.1, "muon": True}])
    for step in range(3):
        give_gradients([matrix], step)
        momentum = 0.95 * momentum + 0.05 * matrix.grad
        ahead = 0.05 * matrix.grad + 0.95 * momentum
        expected -= 0.1 * 0.2 * 10**0.5 * orthogonalize(ahead[None])[0].float()
        optimizer.step()
    torch.testing.assert_close(matrix.detach(), expected, atol=1e-3, rtol=1e-2)


def test_the_update_has_its_size_whatever_the_gradients():
    for scale in (1e-4, 1e4):
        (matrix,) = parameters((32, 64))
        before = matrix.detach().clone()
        optimizer = MuonAdamW([{"params": [matrix], "lr": 0.5, "muon": True}])
        matrix.grad = scale * torch.randn(32, 64, generator=torch.Generator().manual_seed(2))
        optimizer.step()
        moved = (matrix.detach() - before).square().mean().sqrt()
        assert float(moved) == pytest.approx(0.5 * 0.2, rel=0.35)


def test_parameters_without_gradient_stay():
    first, second = parameters((4, 4), (4, 4))
    before = second.detach().clone()
    first.grad = torch.ones(4, 4)
    MuonAdamW([{"params": [first, second], "lr": 0.5, "weight_decay": 0.5, "muon": True}]).step()
    assert torch.equal(second.detach(), before)


def test_state_of_other_parameters_is_refused():
    (first,), (second,) = parameters((3, 5)), parameters((5, 3))
    kept, other = (MuonAdamW([{"params": [one], "lr": 0.1}]) for one in (first, second))
    give_gradients([first], 0)
    kept.step()
    with pytest.raises(ValueError, match=r"a (mean|square) of shape \[3, 5\] for a parameter of shape \[5, 3\]"):
        other.load_state_dict(kept.state_dict())


@pytest.mark.parametrize("has_bfloat16", [False, True])
def test_products_are_in_bfloat16_only_where_the_processor_has_it(monkeypatch, has_bfloat16):
    """In software they took eight times as long as those of float32, and most of a training step."""
    monkeypatch.setattr("redraft.training.optimizer.is_bfloat16_fast", lambda _: has_bfloat16)
    expected = torch.bfloat16 if has_bfloat16 else torch.float32
    assert orthogonalize(torch.eye(4)[None]).dtype == expected
