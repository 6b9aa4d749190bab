"""Puts a trained checkpoint into the package as the bundled model: in bfloat16, with its card, without training state.

Run from the checkout's root: `python tools/bundle.py runs/bundled/step-0009500`.
"""

import sys
from pathlib import Path

import torch

from redraft.training.data.bundled import CARD
from redraft.weights import Checkpoint, save_checkpoint
from redraft.weights.card import write_card
from redraft.weights.fetch import BUNDLED_FOLDER


def bundle(source: Path) -> None:
    """Replaces weights, configuration, the files beside them and the card."""
    checkpoint = Checkpoint.open(source)
    weights = checkpoint.load(dtype=torch.bfloat16, device="cpu")
    save_checkpoint(BUNDLED_FOLDER, checkpoint.config, weights, source=checkpoint)
    write_card(BUNDLED_FOLDER, CARD)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    bundle(Path(sys.argv[1]))
