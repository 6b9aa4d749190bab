"""The readout, plainly: hidden states → sample, argmax, entropy and soft embedding of every canvas position.

C positions, D hidden, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from redraft.model.transformer import Transformer

TOP_ROWS = 64
"""Rows whose whole distribution `top_tokens` holds at a time."""


@dataclass(frozen=True)
class TopTokens:
    """The A likeliest tokens of each position, likeliest first: ids int64 [C, A], log_probs float32 [C, A].

    At temperature 1: what the model itself says, whatever the schedule does with it.
    """

    ids: Tensor
    log_probs: Tensor


@dataclass(frozen=True)
class Readout:
    """What a denoising step learns of each position, all under the step's temperature.

    sample, argmax int64 [C]; entropy float32 [C] in nats; soft_embedding float32 [C, D]; log_probs float32 [C, A] of
    the token ids that were asked for, None where none were.
    """

    sample: Tensor
    argmax: Tensor
    entropy: Tensor
    soft_embedding: Tensor
    log_probs: Tensor | None = None


def plain_readout(
    model: Transformer, hidden: Tensor, temperature: Tensor | float, uniform: Tensor, *, asked: Tensor | None = None
) -> Readout:
    """Reads hidden [C, D] at `temperature` > 0; `uniform` float64 [C] in [0, 1) decides the samples by inverse CDF.

    The temperature is one number, or float [C]. asked int64 [C, A]: token ids whose log-probabilities are wanted.
    """
    logits = model.logits(hidden)
    logits = logits / (temperature.to(logits.dtype)[:, None] if isinstance(temperature, Tensor) else temperature)
    sample, entropy = sample_and_entropy(logits, uniform)
    log_probs = None if asked is None else logits.log_softmax(dim=-1).gather(1, asked)
    return Readout(sample, logits.argmax(dim=-1), entropy, model.soft_embedding(logits), log_probs)


def top_tokens(model: Transformer, hidden: Tensor, count: int) -> TopTokens:
    """The `count` likeliest tokens of hidden [C, D]; a reading of its own, for the few who ask."""
    parts = [
        model.logits(rows).log_softmax(dim=-1).topk(min(count, model.config.vocab_size))
        for rows in torch.split(hidden, TOP_ROWS)
    ]
    return TopTokens(torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts]))


def sample_and_entropy(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row of logits [C, V]: a sample int64 [C], decided by uniform float64 [C], and the entropy [C] in nats."""
    log_probs = logits.log_softmax(dim=-1)
    probs = log_probs.exp()
    return inverse_cdf(probs, uniform), -(probs * log_probs).sum(dim=-1)


def inverse_cdf(probs: Tensor, uniform: Tensor) -> Tensor:
    """The index whose share of the cumulated probs [C, V] holds uniform [C]; never one of probability 0."""
    cumulated = probs.double().cumsum(dim=-1)
    target = uniform[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, target, right=True).squeeze(-1).clamp_max(probs.shape[-1] - 1)
