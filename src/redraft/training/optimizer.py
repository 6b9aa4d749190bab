"""The optimizer, Muon for matrices and AdamW for everything else, and the average of the weights that it moves.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by the nearest
orthogonal matrix, so that all directions move at the same speed. The scale that makes one learning rate fit all
shapes comes from Liu et al., "Muon is scalable for LLM training" (arXiv 2502.16982).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from redraft.model.linear.methods import is_bfloat16_fast
from redraft.training.run.processes import all_rows, count, like, rank, whole
from redraft.training.settings import TrainingSettings

MOMENTUM = 0.95
UPDATE_RMS = 0.2
"""Root mean square of a Muon update at learning rate 1, close to AdamW's."""
EPSILON = 1e-8


class MuonAdamW(Optimizer):
    """An optimizer that applies Muon to groups with `muon` true and AdamW with the group's `betas` to the others.

    Muon's parameters are matrices [..., rows, columns]; a stack of matrices is treated as that many single ones. Both
    algorithms decay weights by learning rate × `weight_decay`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "betas": (0.9, 0.999), "muon": False})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state; ValueError if it belongs to the other algorithm or to a parameter of another shape."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            wanted = {"momentum"} if group["muon"] else {"step", "mean", "square"}
            for parameter in group["params"]:
                if (found := self.state.get(parameter, {}).keys()) and found != wanted:
                    raise ValueError(
                        f"the optimizer state holds {', '.join(found)}, but this optimizer keeps {', '.join(wanted)}"
                    )
                for name in found - {"step"}:
                    if (shape := self.state[parameter][name].shape) != parameter.shape:
                        raise ValueError(
                            f"the optimizer state has a {name} of shape {list(shape)} for a parameter of shape "
                            f"{list(parameter.shape)}"
                        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            gradients = [(p, p.grad) for p in group["params"] if p.grad is not None]
            for parameter, _ in gradients if group["weight_decay"] else ():
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            if group["muon"]:
                self._apply_muon(gradients, group["lr"])
            else:
                self._apply_adamw(gradients, group["lr"], group["betas"])

    def _apply_muon(self, gradients: Sequence[tuple[Tensor, Tensor]], rate: float) -> None:
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for parameter, gradient in gradients:
            by_shape.setdefault((parameter.shape[-2], parameter.shape[-1]), []).append((parameter, gradient))
        for shape, alike in by_shape.items():
            directions = []
            for parameter, gradient in alike:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(gradient, 1 - MOMENTUM)
                directions.append(whole(gradient.lerp(state["momentum"], MOMENTUM)).view(-1, *shape))
            # One batched product for all matrices of a shape, instead of hundreds of small products.
            updates = orthogonalize_together(torch.cat(directions)).float() * (UPDATE_RMS * max(shape) ** 0.5)
            shares = torch.split(updates, [len(part) for part in directions])
            for (parameter, _), update in zip(alike, shares, strict=True):
                parameter.add_(like(parameter, update.view(parameter.shape)), alpha=-rate)

    def _apply_adamw(self, gradients: Sequence[tuple[Tensor, Tensor]], rate: float, betas: tuple[float, float]) -> None:
        for parameter, gradient in gradients:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device="cpu")
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] += 1
            count = int(state["step"])
            state["mean"].lerp_(gradient, 1 - betas[0])
            state["square"].lerp_(gradient.square(), 1 - betas[1])
            spread = (state["square"] / (1 - betas[1] ** count)).sqrt_().add_(EPSILON)
            parameter.addcdiv_(state["mean"], spread, value=-rate / (1 - betas[0] ** count))


def orthogonalize(matrices: Tensor) -> Tensor:
    """Returns nearly orthogonal matrices [n, rows, columns] with the singular vectors of `matrices`.

    They are bfloat16 where its products are fast, float32 elsewhere. Five rounds of Jordan's quintic iteration bring
    every singular value to between about 0.7 and 1.2.
    """
    x: Tensor = matrices.bfloat16() if is_bfloat16_fast(matrices.device) else matrices.float()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


def orthogonalize_together(matrices: Tensor) -> Tensor:
    """Returns what `orthogonalize` does, for the same matrices in all processes, of which each computes its share."""
    share = -(-len(matrices) // count())
    first = rank() * share
    return all_rows(orthogonalize(matrices[first : first + share]), share)[: len(matrices)]


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> MuonAdamW:
    """Returns an optimizer with three groups: the layers' matrices, other matrices, and vectors without weight decay.

    The layers' matrices use Muon if `settings.matrix_factor` is given. The learning rate of a group is the step's times
    the group's `factor`.
    """
    matrices, tables, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            vectors.append(parameter)
        elif name.startswith(("embed_tokens", "self_conditioning")) or "router" in name:
            # A row of the embedding or the router belongs to one token or expert; moving all rows alike would make rare
            # ones unstable. The output of self-conditioning is added to the canvas without a norm before it: updates of
            # constant size would let it grow until the canvas is invisible beside it.
            tables.append(parameter)
        else:
            matrices.append(parameter)
    decay, muon = settings.weight_decay, settings.matrix_factor is not None
    groups = [
        {"params": matrices, "muon": muon, "factor": settings.matrix_factor or 1.0, "weight_decay": decay},
        {"params": tables, "factor": 1.0, "weight_decay": decay},
        {"params": vectors, "factor": settings.vector_factor, "weight_decay": 0.0},
    ]
    return MuonAdamW([group | {"betas": settings.betas} for group in groups])


class WeightAverage:
    """An exponential moving average of a model's parameters.

    The decay is smaller in the first steps, so that the initial weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves towards the model's parameters after update number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            self.parameters[name].lerp_(parameter, 1 - decay)

    def state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """Returns the model's state with the averages in place of the parameters."""
        return {**model.state_dict(), **self.parameters}
