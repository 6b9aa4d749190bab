"""Where a checkpoint is run, and in which precision, where nobody says."""

import torch

from redraft.model.precision import Precision
from redraft.weights.checkpoint import Checkpoint


def pick_device(device: str) -> torch.device:
    """Returns the torch device of a name; ValueError if it is unknown or not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is {device!r}, must be auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda' but torch finds no CUDA device here; use cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(checkpoint: Checkpoint, device: torch.device, precision: str) -> str:
    """The precision that "auto" is for a checkpoint, or the one asked for; ValueError where it cannot give it."""
    if checkpoint.bits is not None:
        possible = [one.name for one in Precision.of_bits(checkpoint.bits)]
        if precision == "auto":
            usable = (one for one in Precision.of_bits(checkpoint.bits) if device.type == "cpu" or not one.is_integer)
            return next(usable).name
        if precision not in possible:
            raise ValueError(
                f"precision is {precision!r}, but the matrices of {checkpoint.folder} are stored in {checkpoint.bits} "
                f"bits: what was rounded away does not come back. Take {' or '.join(possible)}, or the checkpoint that "
                "it was made from"
            )
        return precision
    if precision != "auto":
        return precision
    # The products of small models are too small to gain from bfloat16 on a CPU, and many CPUs have no unit for it.
    return "float32" if device.type == "cpu" and checkpoint.num_bytes < 4_000_000_000 else "bf16"
