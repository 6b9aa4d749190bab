"""The network: embedding, self-conditioning and the stack of layers.

N tokens, D hidden.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from redraft.model.attention import AttentionContext, SegmentedAttention
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.model.config import FULL, SLIDING, ModelConfig
from redraft.model.head import OutputHead
from redraft.model.layers import GatedMLP, Layer, RMSNorm, rope_table
from redraft.model.linear.adapters import AdapterBank
from redraft.model.linear.low_rank import AdapterMatrices
from redraft.model.native.kernels import Kernels
from redraft.model.native.linear import PackedEmbedding


class SelfConditioning(GatedMLP):
    """Adds what the last step believed to the canvas: norm(embedding + MLP(norm(soft embedding)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.hidden_size, config.dense_size)
        self.pre_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.post_norm = RMSNorm(config.hidden_size, config.norm_eps, with_scale=False)

    def forward(self, embedding: Tensor, soft_embedding: Tensor | None = None) -> Tensor:
        """embedding and soft_embedding [N, D], both × √D. None and zeros mean the same: no signal."""
        if soft_embedding is not None:
            embedding = embedding + super().forward(self.pre_norm(soft_embedding.to(embedding.dtype)))
        out: Tensor = self.post_norm(embedding)
        return out


@dataclass(frozen=True)
class ForwardResult:
    """What a forward gives: hidden states [N, D] after the last norm, and the caches as they are after it.

    The cache of a slot that has committed nothing may be the one that was given.
    """

    hidden: Tensor
    caches: tuple[KVCache, ...]


class Embedding(nn.Embedding):
    """An embedding that draws no weights where there are none to draw."""

    def reset_parameters(self) -> None:
        # On the meta device torch would import its compiler for it, which takes more time than all else of a start.
        if not self.weight.is_meta:
            super().reset_parameters()


class Transformer(nn.Module):
    """One stack of weights, read causally (encoder pass) or bidirectionally over a canvas (denoiser pass)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.self_conditioning = SelfConditioning(config)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        # What `prepare` chose for this machine: for the readout, and for attention.
        self.kernels: Kernels | None = None
        self.attention_kernels: Kernels | None = None
        self.packed_embedding: PackedEmbedding | None = None
        # What `hold_adapters` put around the products of a prepared model.
        self.adapters: AdapterBank | None = None

    @property
    def embedding_scale(self) -> float:
        return float(self.config.hidden_size**0.5)

    @property
    def head(self) -> OutputHead:
        return OutputHead(
            embedding=self.embed_tokens.weight,
            softcap=self.config.softcap,
            scale=self.embedding_scale,
            kernels=self.kernels,
            packed=self.packed_embedding,
        )

    def adapter(self, name: str | None) -> AdapterMatrices | None:
        """Returns the adapter that is held under a name, None for None. ValueError where there is none."""
        if name is None:
            return None
        if self.adapters is None:
            raise ValueError(f"there is no adapter {name!r}: none is loaded")
        return self.adapters[name]

    def run(self, batch: FlatBatch, caches: Sequence[KVCache]) -> ForwardResult:
        """Runs a batch whose segments go on from `caches[segment.slot]`, which stay as they are."""
        context = SegmentedAttention(self.config, batch.segments, caches, self.attention_kernels)
        hidden = self(batch.padded(), context)
        return ForwardResult(hidden, context.extended_caches())

    def forward(self, batch: FlatBatch, context: AttentionContext) -> Tensor:
        """Runs every row of the batch through the stack; returns the hidden states [N, D] after the last norm.

        Nothing is returned of padding.
        """
        if self.adapters is None:
            return self._run_stack(batch, context)
        with self.adapters.forward(batch):
            return self._run_stack(batch, context)

    def _run_stack(self, batch: FlatBatch, context: AttentionContext) -> Tensor:
        x = self._embed(batch)
        ropes = {
            SLIDING: rope_table(self.config.sliding, batch.positions),
            FULL: rope_table(self.config.full, batch.positions),
        }
        kind = batch.pass_of_all()
        denoiser_rows = batch.denoiser_rows()[:, None] if kind is None else None
        for kind_of_layer, layer in zip(self.config.layer_types, self.layers, strict=True):
            # Or its fast twin, which has the same two scalars.
            layer = cast(Layer, layer)
            if denoiser_rows is not None:
                scalar = torch.where(denoiser_rows, layer.layer_scalar, layer.encoder_layer_scalar)
            else:
                scalar = layer.layer_scalar if kind is Pass.DENOISER else layer.encoder_layer_scalar
            x = layer(x, ropes[kind_of_layer], scalar, context)
        out: Tensor = self.norm(x)
        return out if batch.covered == out.shape[0] else out[: batch.covered]

    def _embed(self, batch: FlatBatch) -> Tensor:
        x = self.embed_tokens(batch.token_ids)
        # The reference rounds √D to the weights' dtype; so do we, as trained weights expect it.
        x = x * torch.tensor(self.embedding_scale, dtype=x.dtype, device=x.device)
        if batch.embeddings is not None:
            assert batch.embedded is not None
            x = torch.where(batch.embedded[:, None], batch.embeddings.to(x.dtype), x)
        if (kind := batch.pass_of_all()) is Pass.ENCODER:
            encoded: Tensor = x
            return encoded
        conditioned: Tensor = self.self_conditioning(x, batch.soft_embedding)
        if kind is Pass.DENOISER:
            return conditioned
        return torch.where(batch.denoiser_rows()[:, None], conditioned, x)
