"""Copies a trained checkpoint into the package as the bundled model, with its recipe's card; its training state stays.

The matrices that `redraft quantize` would round are stored as 8-bit floats, the rest as bfloat16.

Run from the root of the checkout: `python tools/bundle.py runs/bundled/step-0013500`. The old weights take their
calibration with them: `redraft calibrate bundled` makes the new one.
"""

import sys
from pathlib import Path

import torch

from redraft.bundled import card
from redraft.model.linear.quantized import is_quantized
from redraft.weights.card import read_card, write_card
from redraft.weights.checkpoint import Checkpoint
from redraft.weights.fetch import BUNDLED_FOLDER
from redraft.weights.save import save_checkpoint

CARDS = {one.recipe: one for one in (card.EXTRACTION, card.BUNDLED, card.WIDE)}


def bundle(source: Path) -> None:
    """Replaces the bundled model's weights, configuration, companion files and card.

    Raises ValueError for a checkpoint of no recipe of redraft's own.
    """
    recipe = read_card(source).recipe
    if recipe not in CARDS:
        raise ValueError(f"{source} was trained by the recipe {recipe!r}, must be one of {', '.join(CARDS)}")
    checkpoint = Checkpoint.open(source)
    weights = checkpoint.load(dtype=torch.float32, device="cpu")
    for name, tensor in weights.items():
        weights[name] = tensor.to(torch.float8_e4m3fn if is_quantized(name) else torch.bfloat16)
    save_checkpoint(BUNDLED_FOLDER, checkpoint.config, weights, source=checkpoint)
    write_card(BUNDLED_FOLDER, CARDS[recipe])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    bundle(Path(sys.argv[1]))
