"""Low-rank adapters beside a prepared model's products: each row of a forward has that of its request, or none.

An adapter adds x · Aᵀ · Bᵀ to a product x · Wᵀ (LoRA, arXiv 2106.09685); its scale is part of B here. The matrices of
all adapters lie side by side, a slot for each, and the rows of a forward are sorted by slot: so a product costs two
small grouped products more, whatever the number of adapters, and the base is never copied.

n rows, I inputs, O outputs, r rank, m matrices of a product (1, or the E experts), S slots, K experts per token.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

RANK_MULTIPLE = 8
"""The ranks of a product's adapters are filled up with zeros to the highest of them, and that to a multiple of this."""


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to one matrix, scale included: a [r, I] and b [O, r], or [E, r, I] and [E, O, r]."""

    a: Tensor
    b: Tensor

    @property
    def rank(self) -> int:
        return self.a.shape[-2]

    def delta(self) -> Tensor:
        """Returns the change of the weights, [O, I] or [E, O, I]."""
        return self.b @ self.a


Matrices = Mapping[str, LowRank]
"""What an adapter adds, by the names of the matrices in `Transformer.state_dict`."""
StackMethod = Callable[[Tensor], nn.Module]
"""Makes of weights [m, O, I] a module that multiplies rows sorted by matrix, with the counts of each."""


@dataclass(frozen=True)
class RowGroups:
    """The rows that have an adapter, sorted by matrix: order int64 [n], counts int64 [m · S] rows of each matrix."""

    order: Tensor
    counts: Tensor

    @classmethod
    def of(cls, matrices: Tensor, count: int) -> "RowGroups | None":
        """Groups rows by their matrix, int64 [N], −1 for none; None where no row has any."""
        order = matrices.argsort(stable=True)
        counts = torch.bincount(matrices + 1, minlength=count + 1)
        order = order[int(counts[0]) :]
        return cls(order, counts[1:]) if order.shape[0] else None


class LowRankProducts(nn.Module):
    """The products of all slots with one matrix of the prepared model, or with the stacked ones of its experts.

    parts: the names and outputs of the matrices that the product has under each other.
    """

    def __init__(self, parts: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.down: nn.Module | None = None
        self.up: nn.Module | None = None

    def fill(self, slots: Sequence[Matrices], method: StackMethod, like: Tensor) -> None:
        """Takes the matrices of all slots, in the dtype and on the device of `like`."""
        found = [one for slot in slots for name, _ in self.parts if (one := slot.get(name)) is not None]
        if not found:
            self.down = self.up = None
            return
        ranks = [sum(slot[name].rank for name, _ in self.parts if name in slot) for slot in slots]
        rank = -(-max(ranks) // RANK_MULTIPLE) * RANK_MULTIPLE
        # The experts' [E, r, I], or [1, r, I].
        shape = found[0].a.shape[:-2] or torch.Size((1,))
        outputs, inputs = sum(count for _, count in self.parts), found[0].a.shape[-1]
        a = like.new_zeros(len(slots), *shape, rank, inputs)
        b = like.new_zeros(len(slots), *shape, outputs, rank)
        ends = list(accumulate(count for _, count in self.parts))
        for slot, slot_a, slot_b in zip(slots, a, b, strict=True):
            at = 0
            for (name, count), end in zip(self.parts, ends, strict=True):
                if (one := slot.get(name)) is not None:
                    slot_a[:, at : at + one.rank] = one.a
                    slot_b[:, end - count : end, at : at + one.rank] = one.b
                    at += one.rank
        self.down, self.up = method(a.flatten(0, 1)), method(b.flatten(0, 1))

    def add(self, out: Tensor, x: Tensor, groups: RowGroups | None) -> Tensor:
        """Adds to out [N, O] what the adapters make of x [N, I]; changes and returns `out`."""
        if groups is None or self.down is None or self.up is None:
            return out
        rows = x.index_select(0, groups.order)
        return out.index_add_(0, groups.order, self.up(self.down(rows, groups.counts), groups.counts))


class AdaptedLinear(nn.Module):
    """A product of the prepared model, and what the adapters of its rows add."""

    def __init__(self, base: nn.Module, products: LowRankProducts, bank: "AdapterBank") -> None:
        super().__init__()
        self.base, self.products = base, products
        self._groups = bank.row_groups

    def forward(self, x: Tensor) -> Tensor:
        return self.products.add(self.base(x), x, self._groups())


class AdaptedExperts(nn.Module):
    """The experts' products of the prepared model, and what the adapters of their rows add."""

    def __init__(self, base: Any, gate_up: LowRankProducts, down: LowRankProducts, bank: "AdapterBank") -> None:
        super().__init__()
        self.base, self.gate_up, self.down = base, gate_up, down
        self._groups = bank.expert_groups

    def forward(self, rows: Tensor, counts: Tensor, place: Tensor) -> Tensor:
        """As `ExpertProducts.forward`."""
        groups = self._groups(counts, place)
        inner = self.base.gate(self.gate_up.add(self.base.gate_up(rows, counts), rows, groups))
        return self.down.add(self.base.down(inner, counts), inner, groups)


class AdapterBank:
    """The adapters that a prepared model holds; `preparation.hold_adapters` puts its hooks around the model's products.

    A slot is what one of the two passes does with an adapter: an adapter that does the same in both has one slot. Slot
    0 is the base alone. The hooks of a forward without adapted rows cost a comparison each.
    """

    def __init__(self, method: StackMethod, like: Tensor) -> None:
        self._method, self._like = method, like
        self._products: list[LowRankProducts] = []
        self._slots: dict[str, tuple[int, int]] = {}
        self._matrices: list[Matrices] = []
        self._rows: Tensor | None = None
        self._groups: RowGroups | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    @property
    def num_bytes(self) -> int:
        """What the adapters' matrices take, as they lie side by side."""
        held = (buffer for product in self._products for buffer in product.buffers())
        return sum(one.nbytes for one in held)

    def replace(self, adapters: Mapping[str, tuple[Matrices, Matrices]]) -> None:
        """Holds these adapters, by name what the encoder pass and the denoiser pass add, and no others."""
        self._slots, self._matrices = {}, []
        for name, passes in adapters.items():
            places = []
            for matrices in passes:
                known = [i for i, other in enumerate(self._matrices) if other is matrices]
                if not known:
                    self._matrices.append(matrices)
                places.append((known or [len(self._matrices) - 1])[0] + 1)
            self._slots[name] = (places[0], places[1])
        for product in self._products:
            product.fill(self._matrices, self._method, self._like)

    def products(self, parts: Sequence[tuple[str, int]]) -> LowRankProducts:
        """Makes the products of all slots beside one of the model's."""
        self._products.append(LowRankProducts(parts))
        return self._products[-1]

    def slots(self, name: str | None) -> tuple[int, int]:
        """Returns the slots of an adapter's encoder and denoiser pass; those of None are the base."""
        return (0, 0) if name is None else self._slots[name]

    def begin(self, rows: Tensor | None) -> None:
        """Begins a forward whose rows have these slots, int64 [N]; None: they are all the base's."""
        self._rows = None if rows is None else rows - 1
        self._groups = None if self._rows is None else RowGroups.of(self._rows, len(self._matrices))

    def row_groups(self) -> RowGroups | None:
        """The rows of the forward that is under way, by slot."""
        return self._groups

    def expert_groups(self, counts: Tensor, place: Tensor) -> RowGroups | None:
        """The rows sorted by expert of the forward that is under way, by slot and expert.

        counts int64 [E] rows of each expert; place int64 [N, K] of each choice among the sorted rows.
        """
        if self._groups is None or self._rows is None:
            return None
        experts = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
        slots = torch.empty_like(experts)
        slots[place.flatten()] = self._rows.repeat_interleave(place.shape[1])
        return RowGroups.of(
            torch.where(slots < 0, -1, slots * len(counts) + experts), len(self._matrices) * len(counts)
        )
