"""The readout, plainly: the oracle of the streamed one.

N rows, V vocabulary.
"""

import torch
from torch import Tensor

from redraft.model.head import OutputHead
from redraft.model.readout.query import Readout, ReadoutQuery, TopTokens

NO_LOGIT = -1e20
"""The logit of what is not allowed. Minus infinity would make the entropy's 0 × log 0 a NaN."""


def plain_readout(head: OutputHead, hidden: Tensor, query: ReadoutQuery) -> Readout:
    """Reads hidden [N, D]; see `ReadoutQuery` and `Readout`."""
    as_said = head.logits(hidden)
    forbidden = torch.zeros_like(as_said, dtype=torch.bool)
    if query.allowed is not None:
        forbidden = ~query.allowed.allows(torch.arange(head.vocab_size, device=hidden.device).expand_as(as_said))
    temperature = query.temperature
    logits = as_said / (temperature.to(as_said.dtype)[:, None] if isinstance(temperature, Tensor) else temperature)
    logits = logits.masked_fill(forbidden, NO_LOGIT)
    sample, entropy = sample_and_entropy(logits, query.uniforms)
    log_probs = top = None
    if query.token_ids is not None:
        log_probs = logits.log_softmax(dim=-1).masked_fill(forbidden, -torch.inf).gather(1, query.token_ids)
    if query.top:
        at_one = as_said.masked_fill(forbidden, NO_LOGIT).log_softmax(dim=-1).masked_fill(forbidden, -torch.inf)
        best = at_one.topk(min(query.top, head.vocab_size))
        top = TopTokens(best.indices.masked_fill(best.values.isneginf(), 0), best.values)
    soft_embedding = head.soft_embedding(logits) if query.soft_embedding else None
    return Readout(sample, logits.argmax(dim=-1), entropy, soft_embedding, log_probs, top)


def sample_and_entropy(logits: Tensor, uniforms: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns for each row of logits [N, V] a sample int64 [N] and the entropy [N] in nats.

    uniforms: float64 [N], which decide the samples; without them they are the argmax.
    """
    log_probs = logits.log_softmax(dim=-1)
    probs = log_probs.exp()
    sample = logits.argmax(dim=-1) if uniforms is None else inverse_cdf(probs, uniforms)
    return sample, -(probs * log_probs).sum(dim=-1)


def inverse_cdf(probs: Tensor, uniform: Tensor) -> Tensor:
    """Returns the index whose share of the cumulated probs [N, V] holds uniform [N]; never one of probability 0."""
    cumulated = probs.double().cumsum(dim=-1)
    target = uniform[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, target, right=True).squeeze(-1).clamp_max(probs.shape[-1] - 1)
