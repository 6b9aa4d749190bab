"""The objective of the next bundled model: the causal reader learns first, so its loss weighs more."""

import dataclasses
from typing import Any

from redraft.model.transformer import Transformer
from redraft.training.data.examples import TrainingBatch
from redraft.training.objective import Losses, losses

ENCODER_WEIGHT = 2.0
"""Of the encoder loss, relative to the canvas loss. Decoding verifies drafts of the canvas with the causal reader, so
what the reader knows is what counts, and what it has not understood the canvas cannot draft."""


def reader_losses(model: Transformer, batch: TrainingBatch, **settings: Any) -> Losses:
    """Computes the losses of `redraft.training.objective.losses`, with the encoder's gradient times ENCODER_WEIGHT.

    The values stay as they are, so that runs can be compared.
    """
    found = losses(model, batch, **settings)
    weighed = ENCODER_WEIGHT * found.encoder - (ENCODER_WEIGHT - 1) * found.encoder.detach()
    return dataclasses.replace(found, encoder=weighed)
