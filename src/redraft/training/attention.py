"""Attention for training: many whole examples at once, with keys and values that keep their gradients.

B examples, L longest of them, K canvases of each, C canvas length, H query heads, G key-value heads, d head size.
"""

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.model.config import ModelConfig


class PrefixAttention:
    """Causal attention of the encoder pass that keeps every layer's keys and values for the canvases.

    The flat rows are arranged as [B, L] only for the product: padding comes after a row's last token, where causal
    queries cannot see it. Rows after those of the last example attend to nothing.
    """

    def __init__(
        self, config: ModelConfig, lengths: tuple[int, ...], length_block: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self.config = config
        count, longest = len(lengths), -(-max(lengths) // length_block) * length_block
        sizes = torch.tensor(lengths, device=device)
        at = torch.arange(longest, device=device)
        valid = at < sizes[:, None]
        self.places = valid.flatten().nonzero().squeeze(1)
        self.shape = (count, longest)
        distance = at[:, None] - at[None, :]
        self.bias = {True: _bias((distance >= 0) & (distance < config.sliding_window)), False: _bias(distance >= 0)}
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = q.shape[0]
        q, k, v = (self._padded(x).transpose(1, 2) for x in (q, k, v))
        # A layer that is run again in the backward pass must not replace what its canvases saw.
        self.keys.setdefault(layer, k)
        self.values.setdefault(layer, v)
        out = _attend(q, k, v, self.bias[self.config.is_sliding(layer)])
        flat = out.transpose(1, 2).flatten(0, 1).index_select(0, self.places)
        return F.pad(flat, (0, 0, 0, 0, 0, rows - flat.shape[0]))

    def _padded(self, x: Tensor) -> Tensor:
        # The gradient of index_copy is a plain gather; that of gathering padded rows would be a slow scatter.
        padded = x.new_zeros(self.shape[0] * self.shape[1], *x.shape[1:])
        return padded.index_copy(0, self.places, x[: self.places.shape[0]]).view(*self.shape, *x.shape[1:])

    def select(self, chosen: Tensor) -> "PrefixAttention":
        """Returns the attention of the examples where `chosen` bool [B] is true, detached from the gradient."""
        part = copy.copy(self)
        part.keys = {layer: keys.detach()[chosen] for layer, keys in self.keys.items()}
        part.values = {layer: values.detach()[chosen] for layer, values in self.values.items()}
        return part


class CanvasAttention:
    """Bidirectional attention of canvases, each over itself and the tokens of its example before it."""

    def __init__(self, config: ModelConfig, prefix: PrefixAttention, starts: Tensor, canvas_length: int) -> None:
        """`starts` int64 [B, K] is the number of the example's tokens that each canvas sees."""
        self.config = config
        self.prefix = prefix
        self.shape = (*starts.shape, canvas_length)
        at = torch.arange(prefix.shape[1], device=starts.device)
        ends = starts[:, None, :, None, None]
        whole, window = at < ends, (at < ends) & (at >= ends - (config.sliding_window - 1))
        # The same for every head and every position of a canvas: [B, 1, K, 1, L].
        self.bias = {True: _bias(window), False: _bias(whole)}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        past_k, past_v = self.prefix.keys[layer], self.prefix.values[layer]
        (examples, canvases, length), (heads, size), groups = self.shape, q.shape[1:], k.shape[1]
        past = past_k.shape[2]
        # [B, G, H/G, K, C, d]: the canvases of an example are rows of one product with its keys, which are not copied.
        q = q.view(examples, canvases, length, groups, -1, size).permute(0, 3, 4, 1, 2, 5)
        k, v = (x.view(examples, canvases, length, groups, size).permute(0, 3, 1, 2, 4) for x in (k, v))
        before = (q.reshape(examples, groups, -1, size) @ past_k.mT).view(examples, heads, canvases, length, past)
        before = before + self.bias[self.config.is_sliding(layer)]
        # Each canvas with its own keys: [B, G, K, H/G · C, d].
        rows = q.transpose(2, 3).reshape(examples, groups, canvases, -1, size)
        within = (rows @ k.mT).view(examples, groups, canvases, -1, length, length).transpose(2, 3)
        scores = torch.cat((before, within.reshape(*before.shape[:-1], length)), dim=-1)
        weights = scores.softmax(dim=-1).to(v.dtype)
        before, within = weights[..., :past], weights[..., past:]
        out = (before.reshape(examples, groups, -1, past) @ past_v).view(examples, groups, -1, canvases, length, size)
        within = within.view(examples, groups, -1, canvases, length, length).transpose(2, 3)
        own = within.reshape(examples, groups, canvases, -1, length) @ v
        out = out + own.view(examples, groups, canvases, -1, length, size).transpose(2, 3)
        # [B, G, H/G, K, C, d] → rows, heads, d.
        flat: Tensor = out.permute(0, 3, 4, 1, 2, 5).reshape(-1, heads, size)
        return flat


def _bias(visible: Tensor) -> Tensor:
    """Returns 0 where a query sees a key and minus infinity elsewhere, in the smallest type: scores keep theirs.

    Adding it is cheaper than filling in: nothing is copied before, and the backward pass has nothing to do.
    """
    return torch.zeros_like(visible, dtype=torch.bfloat16).masked_fill_(~visible, float("-inf"))


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attends with q [B, H, n, d] to k and v [B, G, T, d]; `bias` is broadcast to [B, H, n, T] → [B, H, n, d]."""
    # Two products and a softmax: on a CPU, several times faster at these sizes than the fused kernel's backward pass.
    # Query heads that share a key-value head become rows of one product.
    batch, heads, n, size = q.shape
    groups = k.shape[1]
    scores = q.reshape(batch, groups, -1, size) @ k.transpose(2, 3)
    scores = scores.view(batch, heads, n, -1) + bias
    weights = scores.softmax(dim=-1).to(v.dtype).view(batch, groups, -1, k.shape[2])
    return (weights @ v).view(batch, heads, n, size)
