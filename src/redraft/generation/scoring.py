"""What the causal reading says of tokens that are there already.

N rows, D hidden.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from redraft.model.head import OutputHead
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout


def log_probs_of(head: OutputHead, hidden: Tensor, tokens: Sequence[int]) -> list[float]:
    """Returns the log-probability of each of N tokens, from the rows hidden [N, D] of the tokens before them."""
    if not tokens:
        return []
    ids = torch.tensor(tokens, device=hidden.device)[:, None]
    readout = streamed_readout(head, hidden, ReadoutQuery(1.0, None, token_ids=ids, soft_embedding=False))
    assert readout.log_probs is not None
    found: list[float] = readout.log_probs[:, 0].tolist()
    return found
