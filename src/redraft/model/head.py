"""The output head: hidden states → logits, and distributions → embeddings, by the one tied embedding.

N rows, D hidden, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.model.batch import pad_rows
from redraft.model.native.kernels import Kernels
from redraft.model.native.linear import PackedEmbedding


@dataclass(frozen=True, kw_only=True)
class OutputHead:
    """The embedding [V, D] with all that a readout needs to know of it.

    `scale` is what token embeddings are multiplied by (√D); `kernels` and `packed` are there where `prepare` has found
    that they help.
    """

    embedding: Tensor
    softcap: float
    scale: float
    kernels: Kernels | None = None
    packed: PackedEmbedding | None = None

    @property
    def vocab_size(self) -> int:
        return self.embedding.shape[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns the softcapped logits float32 [N, V] of hidden [N, D]."""
        raw = F.linear(pad_rows(hidden), self.embedding)[: hidden.shape[0]].float()
        return self.softcap * torch.tanh(raw / self.softcap)

    def soft_embedding(self, logits: Tensor) -> Tensor:
        """Returns softmax(logits) · E · √D in float32: logits [N, V] → [N, D]."""
        probs = pad_rows(logits.softmax(dim=-1))
        return (probs @ self.embedding.float())[: logits.shape[0]] * self.scale
