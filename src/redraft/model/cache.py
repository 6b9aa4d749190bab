"""The KV cache: what a sequence's committed tokens leave behind for those that follow.

T tokens, G key-value heads, d head size, W sliding window.
"""

import torch
from torch import Tensor

from redraft.model.config import ModelConfig


class KVCache:
    """The keys and values of one sequence's committed tokens, [T, G, d] for each layer.

    To its users a cache is a value: `Transformer.run` takes caches and gives new ones, `fork` and `truncate` give new
    ones too, and all of them share tensors, which nobody writes into. Only attention calls `append` and `advance`, on
    forks of its own.

    Sliding layers keep only what a later token can still see, the last W - 1 tokens; but for those of a cache that is
    `revocable`.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._keys: list[Tensor | None] = [None] * config.num_layers
        self._values: list[Tensor | None] = [None] * config.num_layers
        self._length = 0
        # From how many tokens on nothing has been evicted, since they may be taken back; None where nothing may.
        self._revocable_from: int | None = None

    @property
    def length(self) -> int:
        """The number of committed tokens."""
        return self._length

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self._keys, *self._values) if t is not None)

    def content(self, layer: int) -> tuple[Tensor | None, Tensor | None]:
        """The keys and values of a layer, None where there are none."""
        return self._keys[layer], self._values[layer]

    def stored(self, layer: int) -> int:
        """The number of tokens whose keys a layer holds."""
        keys = self._keys[layer]
        return 0 if keys is None else keys.shape[0]

    def fork(self) -> "KVCache":
        """Returns another cache with the same content, which shares its tensors."""
        other = KVCache(self._config)
        other._keys, other._values, other._length = list(self._keys), list(self._values), self._length
        other._revocable_from = self._revocable_from
        return other

    def revocable(self) -> "KVCache":
        """Returns a cache with the same content, of which all that is encoded from here on may be taken back.

        Its sliding layers evict nothing until it is truncated, to any length from this one on.
        """
        other = self.fork()
        other._revocable_from = self._length
        return other

    @property
    def min_truncation(self) -> int:
        """The least length that `truncate` accepts: 0, or the cache's own once a sliding layer has evicted tokens.

        Of a revocable cache it is the length from which it has been one.

        A sliding layer holds W - 1 tokens. Of a shorter sequence it would need others, which are gone. (With W = 1 it
        needs none.)
        """
        if self._revocable_from is not None:
            return self._revocable_from
        evicted = any(
            self._config.visible_past(layer) and self.stored(layer) < self._length
            for layer in range(self._config.num_layers)
        )
        return self._length if evicted else 0

    def truncate(self, to: int) -> "KVCache":
        """Returns a cache of the first `to` tokens only, as if the others had never been encoded.

        Raises ValueError for a length above this one and below `min_truncation`. Whoever may have to take tokens back
        after that keeps the cache from before them.
        """
        if not self.min_truncation <= to <= self._length:
            raise ValueError(
                f"a cache of {self._length} tokens cannot be truncated to {to}: the length must lie between "
                f"{self.min_truncation} and {self._length}, as sliding layers keep only the last "
                f"{self._config.sliding_window - 1} tokens; keep the cache from before"
            )
        other = self.fork()
        other._length, other._revocable_from = to, None
        if to < self._length or self._revocable_from is not None:
            for layer in range(self._config.num_layers):
                visible, held_from = self._config.visible_past(layer), self._length - self.stored(layer)
                first = held_from if visible is None else max(held_from, to - visible)
                rows = slice(first - held_from, max(0, to - held_from))
                for contents in (other._keys, other._values):
                    if (one := contents[layer]) is not None:
                        # Copies, so that the part that is cut off is really freed.
                        contents[layer] = one if one.shape[0] == rows.stop - rows.start else one[rows].clone()
        return other

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds k and v [n, G, d] to a layer; returns all it then had, before those that no one sees again were evicted.

        The length stays what it is until `advance`.
        """
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            # Copies, so that the cache does not hold on to a whole flat batch.
            keys, values = k.clone(), v.clone()
        else:
            keys, values = torch.cat((keys, k)), torch.cat((values, v))
        visible, held = self._config.visible_past(layer), keys.shape[0]
        if visible is None or held <= visible or self._revocable_from is not None:
            self._keys[layer], self._values[layer] = keys, values
        else:
            # Copies, so that the evicted part is really freed.
            self._keys[layer], self._values[layer] = keys[held - visible :].clone(), values[held - visible :].clone()
        return keys, values

    def advance(self, count: int) -> None:
        """Counts `count` tokens that have been appended to every layer as committed."""
        self._length += count
