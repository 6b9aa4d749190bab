"""The network: configuration, flat batch, KV cache, layers, readout. Imports no other room."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redraft.model.attention import AttentionContext, SegmentedAttention
    from redraft.model.batch import FlatBatch, Pass, Segment, SegmentInput
    from redraft.model.cache import KVCache
    from redraft.model.config import AttentionShape, ModelConfig
    from redraft.model.head import OutputHead
    from redraft.model.precision import PRECISIONS, Precision
    from redraft.model.preparation import packed_embedding_bytes, prepare
    from redraft.model.readout.plain import plain_readout
    from redraft.model.readout.query import AllowedTokens, Readout, ReadoutQuery, TopTokens
    from redraft.model.readout.streamed import streamed_readout
    from redraft.model.transformer import ForwardResult, Transformer

__all__ = [
    "PRECISIONS",
    "AllowedTokens",
    "AttentionContext",
    "AttentionShape",
    "FlatBatch",
    "ForwardResult",
    "KVCache",
    "ModelConfig",
    "OutputHead",
    "Pass",
    "Precision",
    "Readout",
    "ReadoutQuery",
    "Segment",
    "SegmentInput",
    "SegmentedAttention",
    "TopTokens",
    "Transformer",
    "packed_embedding_bytes",
    "plain_readout",
    "prepare",
    "streamed_readout",
]

_MODULES = {
    "attention": ("AttentionContext", "SegmentedAttention"),
    "batch": ("FlatBatch", "Pass", "Segment", "SegmentInput"),
    "cache": ("KVCache",),
    "config": ("AttentionShape", "ModelConfig"),
    "head": ("OutputHead",),
    "precision": ("PRECISIONS", "Precision"),
    "preparation": ("packed_embedding_bytes", "prepare"),
    "readout.plain": ("plain_readout",),
    "readout.query": ("AllowedTokens", "Readout", "ReadoutQuery", "TopTokens"),
    "readout.streamed": ("streamed_readout",),
    "transformer": ("ForwardResult", "Transformer"),
}


def __getattr__(name: str) -> object:
    # The names of the precisions are wanted before torch, which takes a second to import.
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"redraft.model.{module}"), name)
    raise AttributeError(f"module 'redraft.model' has no attribute {name!r}")
