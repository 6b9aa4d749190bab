"""Puts a trained checkpoint into the package as the bundled model, in bfloat16 and without its training state.

Run from the checkout's root: `python tools/bundle.py runs/extract/step-0003000`.
"""

import sys
from pathlib import Path

import torch

from redraft.weights import Checkpoint, save_checkpoint
from redraft.weights.fetch import BUNDLED_FOLDER


def bundle(source: Path) -> None:
    """Replaces weights, configuration and the files beside them."""
    checkpoint = Checkpoint.open(source)
    weights = checkpoint.load(dtype=torch.bfloat16, device="cpu")
    save_checkpoint(BUNDLED_FOLDER, checkpoint.config, weights, source=checkpoint)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    bundle(Path(sys.argv[1]))
