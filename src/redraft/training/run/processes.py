"""The processes of a run that torchrun starts: each has a part of the weights and of every step's examples.

Weights and what the optimizer keeps of them are split over the processes (FSDP2): a layer's are gathered when it runs.
Outside of torchrun there is one process, for which all of this does nothing.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from redraft.model.transformer import Transformer

T = TypeVar("T")


def planned_count() -> int:
    """Returns how many processes torchrun has started for this run; 1 outside of it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first_planned() -> bool:
    """Whether this is the first of the processes that torchrun has started, also after they have parted."""
    return os.environ.get("RANK", "0") == "0"


def share_here() -> float:
    """Returns the share of the run's processes that are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", planned_count())) / planned_count()


def count() -> int:
    """Returns the number of processes that are joined."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process, from 0. The first one writes all files and reports."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    return rank() == 0


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Joins the processes that torchrun has started and yields the device of this one.

    ValueError where another process has ended, which ends this one too, and if torchrun's variables are incomplete.
    """
    if planned_count() == 1 or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise ValueError(
            f"process {rank()} of {count()} has lost another one, which may have been killed: {error}; "
            "the checkpoints are untouched; start all of them again to go on from the newest"
        ) from None
    finally:
        dist.destroy_process_group()


def from_first(report: Callable[[str], None]) -> Callable[[str], None]:
    """Returns `report` for the first process, and silence for the others."""

    def tell(line: str) -> None:
        if is_first():
            report(line)

    return tell


def sharded(make_model: Callable[[], Transformer], weights: Mapping[str, Tensor], device: torch.device) -> Transformer:
    """Returns a model in float32 of which this process holds its part of `weights`."""
    mesh = init_device_mesh(device.type, (count(),))
    with torch.device("meta"):
        model = make_model()
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device=device)
    take(model, weights)
    return model


def take(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Takes the module's part of whole tensors, which have the names of its state."""
    if count() == 1:
        module.load_state_dict(weights)
        return
    with torch.no_grad():
        for name, own in module.state_dict().items():
            own.copy_(like(own, weights[name]))


def like(own: Tensor, whole: Tensor) -> Tensor:
    """Returns the part of a whole tensor that a process has where it has `own`; `whole` itself if that is not split."""
    if not isinstance(own, DTensor):
        return whole
    local = own.to_local()
    parts = whole.chunk(count())
    part = parts[rank()] if rank() < len(parts) else whole[:0]
    part = part.to(device=local.device, dtype=local.dtype)
    return DTensor.from_local(part, own.device_mesh, own.placements, shape=own.shape, stride=own.stride())


def whole(tensor: Tensor) -> Tensor:
    """Returns a tensor with the parts of all processes, which all must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns whole tensors on the CPU in the first process and nothing in the others, which all must call this."""
    found = {}
    for name, tensor in tensors.items():
        complete = whole(tensor.detach())
        if is_first():
            found[name] = complete.cpu().contiguous()
    return found


def all_rows(own: Tensor, share: int) -> Tensor:
    """Returns the rows of all processes, `share` of each; zeros follow those of the last, which may have fewer."""
    if count() == 1:
        return own
    padded = torch.cat([own, own.new_zeros(share - len(own), *own.shape[1:])])
    parts = [torch.empty_like(padded) for _ in range(count())]
    dist.all_gather(parts, padded)
    return torch.cat(parts)


def total(tensor: Tensor) -> Tensor:
    """Returns the sum of a tensor over the processes."""
    if count() > 1:
        dist.all_reduce(tensor)
    return tensor


def average_gradients(module: nn.Module) -> None:
    """Averages the gradients of what every process has as a whole; those of what is split are averaged already."""
    for parameter in module.parameters() if count() > 1 else ():
        if not isinstance(parameter, DTensor):
            # All processes must take part, also one whose examples had no use for it.
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = total(gradient) / count()


def agreed(*is_so: bool) -> tuple[bool, ...]:
    """Returns what the first process says: clocks differ, and all must do the same."""
    if count() == 1:
        return is_so
    flags: list[bool] = list(is_so)
    dist.broadcast_object_list(flags, src=0)
    return tuple(flags)


def first_then_others(make: Callable[[], T]) -> T:
    """Returns what `make` makes: all processes write the same files with it, so none may read another's half of one."""
    made = [make()] if is_first() else []
    wait()
    made = made or [make()]
    wait()
    return made[0]


def wait() -> None:
    """Waits until every process is here."""
    if count() > 1:
        dist.barrier()


@contextmanager
def holding(module: nn.Module, model: Transformer, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Lets the parameters of `module`, which `model` uses, be `weights` for a while; None: as they are."""
    kept = {} if weights is None else {name: one.detach().clone() for name, one in module.named_parameters()}

    @torch.no_grad()
    def put(values: Mapping[str, Tensor]) -> None:
        if isinstance(model, FSDPModule):
            # What was gathered of the parameters before they changed is thrown away.
            model.reshard()
        for name in kept:
            module.get_parameter(name).copy_(values[name])

    put(weights or {})
    try:
        yield
    finally:
        put(kept)
