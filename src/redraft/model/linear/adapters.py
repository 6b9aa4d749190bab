"""Low-rank adapters beside a prepared model's products: each row of a forward has that of its request, or none.

An adapter adds x · Aᵀ · Bᵀ to a product x · Wᵀ; its scale is part of B. The matrices of all adapters lie side by side,
a slot for each, and the rows of a forward are sorted by slot: so a product costs two small grouped products more,
whatever the number of adapters, and the base is never copied.

n rows, I inputs, O outputs, r rank, m matrices of a product (1, or the E experts), S slots, K experts per token.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from redraft.model.batch import FlatBatch, Pass
from redraft.model.linear.low_rank import AdapterMatrices, Matrices
from redraft.model.native.kernels import PANEL

RANK_MULTIPLE = 8
"""The ranks of a product's adapters are filled up with zeros to the highest of them, and that to a multiple of this."""


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

    def shapes(self, slots: Sequence[Matrices]) -> tuple[torch.Size, torch.Size] | None:
        """Returns those that A and B of all slots have, [S, m, r, I] and [S, m, O, r]; None where no slot has any."""
        found = [one for slot in slots for name, _ in self.parts if (one := slot.get(name)) is not None]
        if not found:
            return None
        ranks = [sum(slot[name].rank for name, _ in self.parts if name in slot) for slot in slots]
        rank = -(-max(ranks) // RANK_MULTIPLE) * RANK_MULTIPLE
        # The experts' [E, r, I], or [1, r, I].
        before = (len(slots), *(found[0].a.shape[:-2] or (1,)))
        outputs = sum(count for _, count in self.parts)
        return torch.Size((*before, rank, found[0].a.shape[-1])), torch.Size((*before, outputs, rank))

    def fill(self, slots: Sequence[Matrices], method: StackMethod, like: Tensor) -> None:
        """Takes the matrices of all slots, in the dtype and on the device of `like`."""
        self.down = self.up = None
        if (shapes := self.shapes(slots)) is None:
            return
        a, b = like.new_zeros(shapes[0]), like.new_zeros(shapes[1])
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

    A slot is what one of the two passes does with an adapter: an adapter that does the same in both has one slot. The
    hooks of a forward without adapted rows cost a comparison each. May be used from several threads: adapters come and
    go between two forwards, and a model with a bank runs one forward at a time.
    """

    def __init__(self, method: StackMethod, like: Tensor) -> None:
        self._method, self._like = method, like
        self._products: list[LowRankProducts] = []
        self._held: dict[str, AdapterMatrices] = {}
        self._slots: list[Matrices] = []
        self._lock = threading.RLock()
        self._rows: Tensor | None = None
        self._groups: RowGroups | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._held))

    def __getitem__(self, name: str) -> AdapterMatrices:
        """Raises ValueError for an adapter that is not held."""
        if (found := self._held.get(name)) is None:
            known = f"there are {', '.join(map(repr, self._held))}" if self._held else "none is loaded"
            raise ValueError(f"there is no adapter {name!r}: {known}")
        return found

    @property
    def num_bytes(self) -> int:
        """What the adapters' matrices take, as they lie side by side."""
        held = (buffer for product in self._products for buffer in product.buffers())
        return sum(one.nbytes for one in held)

    def bytes_with(self, *more: AdapterMatrices) -> int:
        """Returns what `num_bytes` would be at most with some adapters more."""
        slots = _distinct([*self._held.values(), *more])
        shapes = (shape for product in self._products for shape in product.shapes(slots) or ())
        filled = (prod(before) * -(-outputs // PANEL) * PANEL * inputs for *before, outputs, inputs in shapes)
        return sum(filled) * self._like.element_size()

    def add(self, adapters: Mapping[str, AdapterMatrices]) -> None:
        """Holds some adapters more. ValueError for a name that is taken."""
        with self._lock:
            if taken := [name for name in adapters if name in self._held]:
                raise ValueError(f"an adapter {taken[0]!r} is loaded already: unload it first, or take another name")
            self._fill({**self._held, **adapters})

    def remove(self, name: str) -> None:
        """Lets an adapter go, at once: a forward that still asks for it fails. ValueError where it is not held."""
        with self._lock:
            gone = self[name]
            self._fill({other: one for other, one in self._held.items() if one is not gone})

    def products(self, parts: Sequence[tuple[str, int]]) -> LowRankProducts:
        """Makes the products of all slots beside one of the model's."""
        self._products.append(LowRankProducts(parts))
        return self._products[-1]

    @contextmanager
    def forward(self, batch: FlatBatch) -> Iterator[None]:
        """Goes around a forward of `batch`. ValueError where an adapter of its segments is not held any more."""
        with self._lock:
            self._rows = self._slots_of_rows(batch)
            self._groups = None if self._rows is None else RowGroups.of(self._rows, len(self._slots))
            try:
                yield
            finally:
                self._rows = self._groups = None

    def _fill(self, adapters: Mapping[str, AdapterMatrices]) -> None:
        self._held = dict(adapters)
        self._slots = _distinct(self._held.values())
        for product in self._products:
            product.fill(self._slots, self._method, self._like)

    def _slots_of_rows(self, batch: FlatBatch) -> Tensor | None:
        """Returns the slot of each row, int64 [N], −1 for the base alone; None where that is all of them."""
        if all(segment.adapter is None for segment in batch.segments):
            return None
        places = {id(slot): i for i, slot in enumerate(self._slots)}
        rows = torch.full(batch.token_ids.shape, -1)
        for segment in batch.segments:
            if (adapter := segment.adapter) is not None:
                if not any(adapter is held for held in self._held.values()):
                    raise ValueError("the adapter of a request was unloaded before its answer was finished")
                matrices = adapter.encoder if segment.kind is Pass.ENCODER else adapter.denoiser
                rows[segment.rows] = places[id(matrices)]
        return rows.to(batch.token_ids.device)

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
        return RowGroups.of(torch.where(slots < 0, -1, slots * len(counts) + experts), len(self._slots) * len(counts))


def _distinct(adapters: Iterable[AdapterMatrices]) -> list[Matrices]:
    """Returns what the passes of some adapters do, each once."""
    passes = (one for adapter in adapters for one in (adapter.encoder, adapter.denoiser))
    return list({id(one): one for one in passes}.values())
