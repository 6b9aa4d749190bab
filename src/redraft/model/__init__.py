"""The network: configuration, flat batch, KV cache, layers, readout. Imports no other room."""

from redraft.model.attention import AttentionContext, SegmentedAttention
from redraft.model.batch import FlatBatch, Pass, Segment, SegmentInput
from redraft.model.cache import KVCache
from redraft.model.config import AttentionShape, ModelConfig
from redraft.model.head import OutputHead
from redraft.model.prepare import PRECISIONS, QUANTIZED_PRECISIONS, base_dtype, packed_embedding_bytes, prepare
from redraft.model.readout.plain import plain_readout
from redraft.model.readout.query import AllowedTokens, Readout, ReadoutQuery, TopTokens
from redraft.model.readout.streamed import streamed_readout
from redraft.model.transformer import ForwardResult, Transformer

__all__ = [
    "PRECISIONS",
    "QUANTIZED_PRECISIONS",
    "AllowedTokens",
    "AttentionContext",
    "AttentionShape",
    "FlatBatch",
    "ForwardResult",
    "KVCache",
    "ModelConfig",
    "OutputHead",
    "Pass",
    "Readout",
    "ReadoutQuery",
    "Segment",
    "SegmentInput",
    "SegmentedAttention",
    "TopTokens",
    "Transformer",
    "base_dtype",
    "packed_embedding_bytes",
    "plain_readout",
    "prepare",
    "streamed_readout",
]
