"""Products by `Kernels.multiply`: with one matrix, with one of several for each row, with tiles of the embedding.

n rows, I inputs, O outputs, m matrices, D hidden, t tokens of a tile.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.model.linear.quantized import Matrix, unquantized
from redraft.model.native.kernels import SHARE, Kernels, packed_panels


class KernelLinear(nn.Module):
    """Products with weights [O, I], or with one of the matrices [m, O, I] for each row.

    The weights are packed: they take as much memory, O filled up to whole panels.
    """

    packed: Tensor

    def __init__(self, weights: Matrix, *, kernels: Kernels) -> None:
        super().__init__()
        plain = unquantized(weights).detach()
        self._kernels, self._outputs = kernels, plain.shape[-2]
        self.register_buffer("packed", packed_panels(plain.view(-1, *plain.shape[-2:])))

    def forward(self, x: Tensor, counts: Tensor | None = None) -> Tensor:
        """x [n, I], sorted by matrix with counts int64 [m] rows of each (None: one matrix) → [n, O]."""
        return self._kernels.multiply(x, self.packed, counts, self._outputs)


class GroupedLinear(nn.Module):
    """`KernelLinear` of stacked matrices with a linear method of another kind for each matrix."""

    def __init__(self, weights: Tensor, *, method: Callable[[Tensor], nn.Module]) -> None:
        super().__init__()
        self.products = nn.ModuleList(method(weight) for weight in weights)

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """x [n, I], of which counts int64 [m] rows belong to each matrix → [n, O]."""
        shares = zip(self.products, x.split(counts.tolist()), strict=True)  # type: ignore[no-untyped-call]
        return torch.cat([product(share) for product, share in shares if share.shape[0]])


class PackedEmbedding:
    """Two copies of an embedding [V, D], packed tile by tile for the readout's two products; `num_bytes` together."""

    def __init__(self, embedding: Tensor, tile: int, kernels: Kernels) -> None:
        self._kernels, self._hidden_size = kernels, embedding.shape[1]
        tiles = embedding.detach().split(tile)  # type: ignore[no-untyped-call]
        self._sizes = [one.shape[0] for one in tiles]
        self._keys = [packed_panels(one[None]) for one in tiles]
        # Filled up as the probabilities are.
        self._values = [packed_panels(F.pad(one.t(), (0, -one.shape[0] % SHARE))[None]) for one in tiles]

    @property
    def num_bytes(self) -> int:
        return sum(one.nbytes for one in (*self._keys, *self._values))

    def logits(self, hidden: Tensor, tile: int) -> Tensor:
        """hidden [n, D] → [n, t]."""
        return self._kernels.multiply(hidden, self._keys[tile], None, self._sizes[tile])

    def average(self, probabilities: Tensor, tile: int) -> Tensor:
        """probabilities [n, t], filled up with zeros to whole shares → [n, D]."""
        return self._kernels.multiply(probabilities, self._values[tile], None, self._hidden_size)
