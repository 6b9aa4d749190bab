"""Attention for training: many whole examples at once, keys and values kept with their gradients.

B examples, L longest of them, C canvas length, H query heads, G key-value heads, d head size.
"""

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.model.config import ModelConfig


class PrefixAttention:
    """Causal attention of the encoder pass; keeps every layer's keys and values for the canvases that follow.

    The flat rows are laid out as [B, L] for the product only: what pads a row lies behind its last token, where causal
    queries cannot see it. Rows behind the last example's attend to nothing.
    """

    def __init__(self, config: ModelConfig, lengths: tuple[int, ...], length_block: int = 1) -> None:
        self.config = config
        count, longest = len(lengths), -(-max(lengths) // length_block) * length_block
        sizes = torch.tensor(lengths)
        at = torch.arange(longest)
        valid = at < sizes[:, None]
        self.places = valid.flatten().nonzero().squeeze(1)
        self.shape = (count, longest)
        distance = at[:, None] - at[None, :]
        self.visible = {
            True: (distance >= 0) & (distance < config.sliding_window),
            False: distance >= 0,
        }
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = q.shape[0]
        q, k, v = (self._padded(x).transpose(1, 2) for x in (q, k, v))
        self.keys[layer], self.values[layer] = k, v
        out = _attend(q, k, v, self.visible[self.config.is_sliding(layer)])
        flat = out.transpose(1, 2).flatten(0, 1).index_select(0, self.places)
        return F.pad(flat, (0, 0, 0, 0, 0, rows - flat.shape[0]))

    def _padded(self, x: Tensor) -> Tensor:
        # index_copy, because its gradient is a plain gather; that of gathering padded rows would be a slow scatter.
        padded = x.new_zeros(self.shape[0] * self.shape[1], *x.shape[1:])
        return padded.index_copy(0, self.places, x[: self.places.shape[0]]).view(*self.shape, *x.shape[1:])

    def select(self, chosen: Tensor) -> "PrefixAttention":
        """The same for the examples where `chosen` bool [B] is true, cut off from the gradient."""
        part = copy.copy(self)
        part.keys = {layer: keys.detach()[chosen] for layer, keys in self.keys.items()}
        part.values = {layer: values.detach()[chosen] for layer, values in self.values.items()}
        return part


class CanvasAttention:
    """Bidirectional attention of B canvases, each over itself and over its example's tokens before the canvas."""

    def __init__(
        self, config: ModelConfig, prefix: PrefixAttention, starts: tuple[int, ...], canvas_length: int
    ) -> None:
        self.config = config
        self.prefix = prefix
        self.shape = (len(starts), canvas_length)
        at = torch.arange(prefix.shape[1])
        ends = torch.tensor(starts)[:, None]
        canvas = torch.ones(self.shape, dtype=torch.bool)
        whole, window = at < ends, (at < ends) & (at >= ends - (config.sliding_window - 1))
        # Every position of a canvas sees the same: [B, 1, 1, L + C].
        self.visible = {
            sliding: torch.cat((past, canvas), dim=1)[:, None, None, :]
            for sliding, past in ((True, window), (False, whole))
        }

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.view(*self.shape, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        keys = torch.cat((self.prefix.keys[layer], k), dim=2)
        values = torch.cat((self.prefix.values[layer], v), dim=2)
        out = _attend(q, keys, values, self.visible[self.config.is_sliding(layer)])
        return out.transpose(1, 2).flatten(0, 1)


def _attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """q [B, H, n, d], k and v [B, G, T, d], visible bool broadcast to [B, 1, n, T] → [B, H, n, d]."""
    # Two products and a softmax: on a CPU several times faster than the fused kernel's backward at these sizes. Query
    # heads that share a key-value head become rows of one product.
    batch, heads, n, size = q.shape
    groups = k.shape[1]
    scores = q.reshape(batch, groups, -1, size) @ k.transpose(2, 3)
    scores = scores.view(batch, heads, n, -1).masked_fill(~visible, float("-inf"))
    weights = scores.softmax(dim=-1).to(v.dtype).view(batch, groups, -1, k.shape[2])
    return (weights @ v).view(batch, heads, n, size)
