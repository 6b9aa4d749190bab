"""Writes the mean of two checkpoints' weights: one that was trained further, and the one it began with.

Such a mean keeps more of what the model could before (Wortsman et al., 2021, arXiv 2109.01903), and can be trained on.

Run from the root of the checkout: `python tools/mean.py before runs/wide/step-0002250 runs/mean --share 0.8`.
"""

import argparse
from pathlib import Path

import torch

from redraft.weights.checkpoint import Checkpoint
from redraft.weights.save import save_checkpoint


def write_mean(before: Path, after: Path, out: Path, share: float) -> None:
    """Writes weights that are `share` of `after` and the rest of `before`, in bfloat16, with the files beside `after`.

    Raises ValueError for a share that is not between 0 and 1, and for checkpoints of different configurations.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share is {share}, must lie between 0 and 1")
    old, new = Checkpoint.open(before), Checkpoint.open(after)
    if old.config != new.config:
        raise ValueError(f"{before} has another configuration than {after}")
    given, trained = (one.load(dtype=torch.float32, device="cpu") for one in (old, new))
    mean = {name: tensor.lerp(trained[name], share).bfloat16() for name, tensor in given.items()}
    save_checkpoint(out, new.config, mean, source=new)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, required=True, help="of the second checkpoint in the mean")
    given = parser.parse_args()
    write_mean(given.before, given.after, given.out, given.share)
