"""Muon for matrices, AdamW for everything else, as one optimizer.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by the nearest
orthogonal matrix, so that all its directions move at the same speed; the scale that makes one learning rate fit all
shapes is that of Liu et al., "Muon is scalable for LLM training" (arXiv 2502.16982).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

MOMENTUM = 0.95
UPDATE_SIZE = 0.2
"""Root mean square of an update at learning rate 1, about what AdamW's is."""
EPSILON = 1e-8


class MuonAdamW(Optimizer):
    """Groups with `muon` true hold matrices [..., rows, columns], a stack of them in one tensor counting as so many.

    The others get AdamW with the group's `betas`. Both decay weights by learning rate × `weight_decay`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "betas": (0.9, 0.999), "muon": False})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's; ValueError where a parameter's state is another algorithm's or another parameter's."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            wanted = {"momentum"} if group["muon"] else {"step", "mean", "square"}
            for parameter in group["params"]:
                if (found := self.state.get(parameter, {}).keys()) and found != wanted:
                    raise ValueError(f"its optimizer kept {', '.join(found)}, this one keeps {', '.join(wanted)}")
                for name in found - {"step"}:
                    if (kept := self.state[parameter][name].shape) != parameter.shape:
                        raise ValueError(f"its optimizer kept a {name} of {list(kept)} for {list(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            slopes = [(p, p.grad) for p in group["params"] if p.grad is not None]
            for parameter, _ in slopes if group["weight_decay"] else ():
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            if group["muon"]:
                self._step_matrices(slopes, group["lr"])
            else:
                self._step_others(slopes, group["lr"], group["betas"])

    def _step_matrices(self, slopes: Sequence[tuple[Tensor, Tensor]], rate: float) -> None:
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for parameter, gradient in slopes:
            by_shape.setdefault((parameter.shape[-2], parameter.shape[-1]), []).append((parameter, gradient))
        for shape, alike in by_shape.items():
            directions = []
            for parameter, gradient in alike:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(gradient, 1 - MOMENTUM)
                directions.append(gradient.lerp(state["momentum"], MOMENTUM).view(-1, *shape))
            # All matrices of one shape in one batched product: a few large ones instead of hundreds of small ones.
            updates = orthogonalised(torch.cat(directions)).float() * (UPDATE_SIZE * max(shape) ** 0.5)
            shares = torch.split(updates, [len(part) for part in directions])
            for (parameter, _), update in zip(alike, shares, strict=True):
                parameter.add_(update.view_as(parameter), alpha=-rate)

    def _step_others(self, slopes: Sequence[tuple[Tensor, Tensor]], rate: float, betas: tuple[float, float]) -> None:
        for parameter, gradient in slopes:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] += 1
            count = int(state["step"])
            state["mean"].lerp_(gradient, 1 - betas[0])
            state["square"].lerp_(gradient.square(), 1 - betas[1])
            spread = (state["square"] / (1 - betas[1] ** count)).sqrt_().add_(EPSILON)
            parameter.addcdiv_(state["mean"], spread, value=-rate / (1 - betas[0] ** count))


def orthogonalised(matrices: Tensor) -> Tensor:
    """Nearly orthogonal matrices bfloat16 [n, rows, columns] with the singular vectors of `matrices`.

    Five rounds of Jordan's quintic iteration, which brings every singular value near 1, between about 0.7 and 1.2.
    """
    x: Tensor = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x
