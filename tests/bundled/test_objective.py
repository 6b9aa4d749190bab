"""The objective of the next bundled model: the same losses, of which the encoder's moves the weights more."""

import torch

from redraft.bundled.objective import ENCODER_WEIGHT, reader_losses
from redraft.diffusion.randomness import Counter
from redraft.training.data.examples import Example, make_batch
from redraft.training.objective import losses
from tests.fakes.models import tiny_model

EXAMPLES = [Example((5, 9, 30, 7), (11, 12, 1)), Example((8, 6), (40, 41, 42, 43, 44, 45, 46, 47, 48, 1))]


def test_the_encoder_counts_more_and_the_losses_are_reported_as_they_are():
    model = tiny_model().requires_grad_(True)
    batch = make_batch(EXAMPLES, 8, 61, Counter(0), self_conditioning=0.0)
    plain, weighed = losses(model, batch, prompt_weight=0.1), reader_losses(model, batch, prompt_weight=0.1)
    torch.testing.assert_close((weighed.canvas, weighed.encoder), (plain.canvas, plain.encoder))
    weight = model.layers[0].self_attn.q_proj.weight
    (of_plain,) = torch.autograd.grad(plain.encoder, weight)
    (of_weighed,) = torch.autograd.grad(weighed.encoder, weight)
    torch.testing.assert_close(of_weighed, ENCODER_WEIGHT * of_plain)
