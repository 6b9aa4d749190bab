"""Objectives in which the causal reader's loss has another weight than the canvas's."""

import dataclasses
from functools import partial
from typing import Any

from redraft.model.transformer import Transformer
from redraft.training.data.examples import TrainingBatch
from redraft.training.objective import Losses, losses

ENCODER_WEIGHT = 2.0
"""Of the bundled model's encoder loss, relative to the canvas loss. Decoding verifies drafts of the canvas with
the causal reader, so what the reader knows is what counts, and what it has not understood the canvas cannot draft."""


def weighed_losses(model: Transformer, batch: TrainingBatch, *, encoder_weight: float, **settings: Any) -> Losses:
    """Computes the losses of `redraft.training.objective.losses`, with the encoder's gradient times `encoder_weight`.

    The values stay as they are, so that runs can be compared.
    """
    found = losses(model, batch, **settings)
    weighed = encoder_weight * found.encoder - (encoder_weight - 1) * found.encoder.detach()
    return dataclasses.replace(found, encoder=weighed)


reader_losses = partial(weighed_losses, encoder_weight=ENCODER_WEIGHT)
"""The objective of the bundled model: its causal reader learns first."""
