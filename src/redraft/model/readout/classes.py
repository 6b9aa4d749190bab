"""The readout by classes of tokens: what a constraint needs to know of a canvas, and no tensor of [N, V].

It is read off the same tiles as all else (`streamed.py`). N rows, V vocabulary, t tokens of a tile, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from redraft.model.head import OutputHead

TILE = 1024
"""Tokens read at a time: with STREAM_ROWS rows a tile of bfloat16 logits is 0.5 MB, which stays in a core's cache."""


@dataclass(frozen=True)
class ClassReadout:
    """What is learned of each class of tokens, under each row's temperature; float64 [N, K], on the CPU.

    log_mass: of the class's share of the whole vocabulary's probability; entropy: of the token, given the class, in
    nats; best_token int64 and best_log_prob: its likeliest token, of several the first, and its log-probability.
    """

    log_mass: Tensor
    entropy: Tensor
    best_token: Tensor
    best_log_prob: Tensor


class ClassMap:
    """The classes of a vocabulary's tokens, in the order in which tiles are read; made once for many readouts.

    of_token: integers [V] below `count`, negative for tokens of no class; every class has a token. Those of no class
    are one more, the last: the whole vocabulary's mass needs them.
    """

    def __init__(self, of_token: Tensor, count: int) -> None:
        self.count = count
        self.columns = torch.where(of_token < 0, count, of_token).long()
        self.tiles: list[tuple[Tensor, Tensor, Tensor]] = []
        """Of each tile: its tokens int32 [t] by class; where each of its classes begins there, and the end; which."""
        for tile in self.columns.split(TILE):  # type: ignore[no-untyped-call]
            ordered, order = tile.sort(stable=True)
            classes, sizes = ordered.unique_consecutive(return_counts=True)
            begin = torch.cat((sizes.new_zeros(1), sizes.cumsum(0)))
            self.tiles.append((order.int(), begin.int(), classes.int()))


@dataclass(frozen=True)
class RowClasses:
    """The classes that rows [start, stop) of a readout are read by."""

    start: int
    stop: int
    classes: ClassMap


class RunningClasses:
    """What the tiles so far say of some rows' classes; sharpness float32 [N, 1] makes z a logit under its temperature.

    highest z float32, best token int64, mass and moment float64, as in the streamed readout, but [N, K + 1]: of each
    class its own, relative to its own highest, since between the classes of a row lie up to two softcaps over the
    temperature.
    """

    def __init__(self, asked: RowClasses, head: OutputHead, sharpness: Tensor) -> None:
        self.asked, self._head, self._sharpness = asked, head, sharpness
        shape, device = (asked.stop - asked.start, asked.classes.count + 1), sharpness.device
        self._columns = asked.classes.columns.to(device)
        self._highest = torch.full(shape, -torch.inf, dtype=torch.float32, device=device)
        self._best = torch.zeros(shape, dtype=torch.int64, device=device)
        self._mass = torch.zeros(shape, dtype=torch.float64, device=device)
        self._moment = torch.zeros_like(self._mass)

    def read(self, rows: slice, tile: Tensor, start: int, *, is_capped: bool) -> None:
        """Takes a tile [n, t] of some of the rows into account, whose first token is `start`.

        is_capped: whether it holds z in units of the softcap, else it holds logits before it, for the kernels.
        """
        sharpness = self._sharpness[rows]
        sums = self._highest[rows], self._best[rows], self._mass[rows], self._moment[rows]
        if is_capped:
            self._read_plainly(tile, sharpness, sums, start)
        else:
            assert self._head.kernels is not None
            groups = self.asked.classes.tiles[start // TILE]
            self._head.kernels.read_classes(tile, self._head.softcap, sharpness, groups, *sums, start)

    def _read_plainly(self, z: Tensor, sharpness: Tensor, sums: tuple[Tensor, ...], start: int) -> None:
        """`Kernels.read_classes` for z [n, t]."""
        highest, best, mass, moment = sums
        stop = start + z.shape[1]
        column = self._columns[start:stop].expand(z.shape)
        peak = torch.full_like(highest, -torch.inf).scatter_reduce_(1, column, z, "amax")
        ids = torch.arange(start, stop, device=z.device).expand(z.shape)
        ids = torch.where(z == peak.gather(1, column), ids, stop)
        first = torch.full_like(best, stop).scatter_reduce_(1, column, ids, "amin")
        is_higher = peak > highest
        best.copy_(torch.where(is_higher, first, best))
        peak = torch.where(is_higher, peak, highest)
        shift = torch.where(highest.isfinite(), (highest - peak) * sharpness, 0).double()
        moment.copy_(shift.exp() * (moment + shift * mass))
        mass.mul_(shift.exp())
        highest.copy_(peak)
        log_p = ((z - peak.gather(1, column)) * sharpness).double()
        p = log_p.exp()
        mass.scatter_add_(1, column, p)
        moment.scatter_add_(1, column, p * log_p)

    def readout(self) -> ClassReadout:
        """Returns what they say when all tiles have been read."""
        highest = self._highest.double() * self._sharpness.double()
        log_mass = highest + self._mass.log()
        whole = log_mass.logsumexp(dim=1, keepdim=True)
        entropy = self._mass.log() - self._moment / self._mass
        found = (log_mass - whole, entropy, self._best, highest - whole)
        return ClassReadout(*(one[:, : self.asked.classes.count].cpu() for one in found))
