"""The readout, fast: one stream over tiles of the vocabulary, as attention does it, and never a tensor of [N, V].

The embedding's rows are keys and values at once: logits are products with them, the soft embedding is their average.
A running maximum keeps the exponentials in range (Milakov, Gimelshein: Online normalizer calculation for softmax,
2018). For sampling by inverse CDF the mass of every share of SHARE tokens is kept; when the total is known, the one
share that holds a row's uniform number is computed again for that row.

N rows, D hidden, V vocabulary, t tokens of a tile, q shares of a tile, A tokens asked for of each row.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.model.batch import pad_rows
from redraft.model.head import OutputHead
from redraft.model.linear.methods import multiply
from redraft.model.native.kernels import SHARE
from redraft.model.readout.classes import TILE, RunningClasses
from redraft.model.readout.plain import NO_LOGIT
from redraft.model.readout.query import Readout, ReadoutQuery, Rows, TopTokens, concatenate

STREAM_ROWS, KERNEL_STREAM_ROWS = 128, 256
"""Rows that share one stream over the vocabulary, more where kernels do with fewer temporary tensors.

They bound what is kept for a share of it to [STREAM_ROWS, V / SHARE].
"""

_MAX_GATHERED = 2**18
"""Elements of the embedding gathered at a time."""

_FLOOR = -2.0
"""Below every logit in units of the softcap, and above NO_LOGIT."""


def streamed_readout(head: OutputHead, hidden: Tensor, query: ReadoutQuery) -> Readout:
    """Returns what `plain_readout` gives for hidden [N, D], in memory that does not grow with N × V.

    A row's result does not depend on the rows beside it. Only what is asked costs anything.

    With float32 weights all but the sums over tiles is float32; with bfloat16 ones the products are bfloat16, with what
    that rounds (logits, and a tile's part of the soft embedding).
    """
    size = STREAM_ROWS if head.kernels is None else KERNEL_STREAM_ROWS
    if query.allowed is None:
        sharpness = _sharpness(head, hidden, query)
        classes = [RunningClasses(asked, head, sharpness[asked.start : asked.stop]) for asked in query.classes]
        blocks = [slice(start, start + size) for start in range(0, hidden.shape[0], size)]
        whole = concatenate(
            [_VocabularyStream(head, hidden, query, rows, classes=classes).readout() for rows in blocks]
        )
        return dataclasses.replace(whole, classes=tuple(one.readout() for one in classes))
    if query.classes:
        raise ValueError("rows that are limited to allowed tokens cannot be read by classes as well")
    # Rows that are limited are read in another way, those beside them as ever.
    places, parts = [], []
    for limited in (False, True):
        for rows in torch.split(((query.allowed.rows >= 0) == limited).nonzero()[:, 0], size):
            if len(rows):
                places.append(rows)
                parts.append(_VocabularyStream(head, hidden, query, rows, limited=limited).readout())
    return concatenate(parts).select(torch.cat(places).argsort())


def _sharpness(head: OutputHead, hidden: Tensor, query: ReadoutQuery) -> Tensor:
    """Returns float32 [N, 1]: z · sharpness is a logit under its row's temperature."""
    temperature = torch.as_tensor(query.temperature, dtype=torch.float64, device=hidden.device)
    return (head.softcap / temperature.expand(hidden.shape[0])).float()[:, None]


class _RunningTop:
    """The likeliest tokens of the tiles so far: z float32, ids int64 [N, A], and all tokens' mass at temperature 1."""

    def __init__(self, rows: int, count: int, softcap: float, device: torch.device) -> None:
        self._softcap = softcap
        self._z = torch.full((rows, count), NO_LOGIT, dtype=torch.float32, device=device)
        self._ids = torch.zeros(rows, count, dtype=torch.int64, device=device)
        self._mass = torch.zeros(rows, dtype=torch.float64, device=device)

    def read(self, z: Tensor, start: int) -> None:
        """Takes a tile z [N, t] into account, whose first token is `start`."""
        count, before = self._z.shape[1], self._highest()
        found = z.topk(min(count, z.shape[1]), dim=-1)
        best = torch.cat((self._z, found.values), dim=1).topk(count, dim=-1)
        self._z = best.values
        self._ids = torch.cat((self._ids, found.indices + start), dim=1).gather(1, best.indices)
        highest = self._highest()
        mass = ((z - highest) * self._softcap).exp_().sum(dim=-1, dtype=torch.float64)
        self._mass = self._mass * ((before - highest) * self._softcap)[:, 0].double().exp() + mass

    def tokens(self) -> TopTokens:
        """Returns what they are when all tiles have been read."""
        log_probs = ((self._z - self._highest()).double() * self._softcap - self._mass.log()[:, None]).float()
        nothing = self._z < _FLOOR
        return TopTokens(self._ids.masked_fill(nothing, 0), log_probs.masked_fill(nothing, -torch.inf))

    def _highest(self) -> Tensor:
        return self._z[:, :1].clamp_min(_FLOOR)


class _VocabularyStream:
    """One pass over the vocabulary for a block of rows, which are all limited to allowed tokens or all not.

    Logits are in units of the softcap, z in [-1, 1]. Of all tiles so far: the highest z float32 [N, 1] and the argmax
    int64 [N]; mass float64 [N], moment float64 [N] and soft float32 [N, D], the sums of p, p · log p and p · E, with p
    relative to the highest.
    """

    def __init__(
        self,
        head: OutputHead,
        hidden: Tensor,
        query: ReadoutQuery,
        rows: Rows,
        *,
        limited: bool = False,
        classes: Sequence[RunningClasses] = (),
    ) -> None:
        self._head, self._query, self._block = head, query, rows
        sharpness, hidden = _sharpness(head, hidden, query)[rows], hidden[rows]
        self._rows, self._hidden = hidden.shape[0], pad_rows(hidden)
        count, device = self._hidden.shape[0], hidden.device
        filling = (0, count - self._rows)
        self._sharpness = F.pad(sharpness, (0, 0, *filling), value=1.0)
        self._classes = classes
        # The set that each row is limited to; padding has one that is read anyway.
        self._sets: Tensor | None = None
        if limited and query.allowed is not None:
            sets = query.allowed.rows[rows]
            self._sets = torch.cat((sets, sets[:1].expand(filling[1])))
        self._top = None
        if query.top:
            self._top = _RunningTop(count, min(query.top, head.vocab_size), head.softcap, device)
        # What rows that are limited find in a tile without a token for them lies below.
        lowest = _FLOOR if limited else -torch.inf
        self._highest = torch.full((count, 1), lowest, dtype=torch.float32, device=device)
        self._argmax = torch.zeros(count, dtype=torch.int64, device=device)
        self._mass = torch.zeros(count, dtype=torch.float64, device=device)
        self._moment = torch.zeros(count, dtype=torch.float64, device=device)
        self._soft = torch.zeros(count, hidden.shape[1], dtype=torch.float32, device=device)

    def readout(self) -> Readout:
        """Reads the whole vocabulary."""
        n, query, size = self._rows, self._query, self._head.vocab_size
        starts = range(0, size, TILE)
        rows, device = self._hidden.shape[0], self._hidden.device
        shares = torch.zeros(rows, len(starts), TILE // SHARE, dtype=torch.float32, device=device)
        # What the masses of a tile's shares are relative to.
        levels = torch.empty(rows, len(starts), dtype=torch.float32, device=device)
        has_tokens = [True] * len(starts)
        if self._sets is not None and query.allowed is not None:
            masks = F.pad(query.allowed.masks[torch.unique(self._sets)].any(dim=0), (0, -size % TILE))
            has_tokens = masks.view(-1, TILE).any(dim=1).tolist()
        for tile, start in enumerate(starts):
            if has_tokens[tile]:
                self._read(start, min(start + TILE, size), shares[:, tile])
            levels[:, tile : tile + 1] = self._highest
        log_mass, highest, soft, sample = self._mass.log(), self._highest[:n], None, self._argmax[:n]
        if query.uniforms is not None:
            sample = self._sample(query.uniforms[self._block], shares[:n], levels[:n], highest)
        if query.soft_embedding:
            soft = self._soft.mul_((self._head.scale / self._mass[:, None]).float())[:n]
        return Readout(
            sample=sample,
            argmax=self._argmax[:n],
            entropy=(log_mass - self._moment / self._mass)[:n].float(),
            soft_embedding=soft,
            log_probs=None if query.token_ids is None else self._log_probs(query.token_ids[self._block], log_mass[:n]),
            top=None if self._top is None else self._top.tokens()[:n],
        )

    def _read(self, start: int, stop: int, shares: Tensor) -> None:
        """Takes tokens [start, stop) into the sums, and writes the masses [N, q] of their shares."""
        kernels, packed, keys = self._head.kernels, self._head.packed, self._head.embedding[start:stop]
        logits = multiply(self._hidden, keys) if packed is None else packed.logits(self._hidden, start // TILE)
        if kernels is not None and self._sets is None:
            self._read_classes(logits, start)
            p, shrunk = kernels.read_tile(
                logits, self._head.softcap, self._sharpness, self._highest, self._argmax, self._mass, self._moment,
                shares, start,
            )  # fmt: skip
            if self._top is not None:
                self._top.read(self._capped(logits), start)
        else:
            z = self._capped(logits)
            self._read_classes(z, start, is_capped=True)
            if self._sets is not None and self._query.allowed is not None:
                z.masked_fill_(~self._query.allowed.masks[:, start:stop][self._sets], NO_LOGIT)
            if self._top is not None:
                self._top.read(z, start)
            p, shrunk = self._read_capped(z, start, shares)
        if not self._query.soft_embedding:
            return
        part = multiply(p[:, : stop - start], keys.t()) if packed is None else packed.average(p, start // TILE)
        if kernels is not None:
            kernels.accumulate(self._soft, shrunk, part)
        else:
            self._soft.mul_(shrunk).add_(part)

    def _read_classes(self, tile: Tensor, start: int, *, is_capped: bool = False) -> None:
        """Takes those rows of a tile [N, t] into their classes' sums that are read by classes."""
        for running in self._classes:
            assert isinstance(self._block, slice)
            begin, end = max(running.asked.start, self._block.start), min(running.asked.stop, self._block.stop)
            if begin < end:
                rows = slice(begin - running.asked.start, end - running.asked.start)
                running.read(
                    rows, tile[begin - self._block.start : end - self._block.start], start, is_capped=is_capped
                )

    def _read_capped(self, z: Tensor, start: int, shares: Tensor) -> tuple[Tensor, Tensor]:
        """`Kernels.read_tile` for z [N, t], which it overwrites."""
        if filling := -z.shape[1] % SHARE:
            z = F.pad(z, (0, filling), value=NO_LOGIT)
        in_shares = z.view(z.shape[0], -1, SHARE)
        peaks = in_shares.amax(dim=-1)
        peak = peaks.amax(dim=-1, keepdim=True)
        # The argmax of a long row is slow to find, that of its shares and then of one share is not.
        share = peaks.argmax(dim=-1)
        best = in_shares[torch.arange(z.shape[0], device=z.device), share].argmax(dim=-1) + share * SHARE + start
        self._argmax = torch.where((peak > self._highest)[:, 0], best, self._argmax)
        highest = torch.maximum(peak, self._highest)
        # How much the sums so far shrink, now that they are relative to a higher peak.
        shift = (self._highest - highest) * self._sharpness
        shrunk = torch.exp(shift)
        self._highest = highest

        log_p = z.sub_(highest).mul_(self._sharpness)
        p = log_p.exp()
        masses = p.view_as(in_shares).sum(dim=-1)
        kept = shrunk[:, 0].double()
        # Of p · log p = p · (log p - shift) + p · shift; where nothing has been summed yet, shift is infinite.
        carried = torch.where(kept > 0, self._mass * shift[:, 0].double(), 0)
        self._moment = (self._moment + carried) * kept + (log_p.mul_(p)).sum(dim=-1).double()
        self._mass = self._mass * kept + masses.sum(dim=-1, dtype=torch.float64)
        shares[:, : masses.shape[1]] = masses
        return p.to(self._hidden.dtype), shrunk

    def _sample(self, uniforms: Tensor, shares: Tensor, levels: Tensor, highest: Tensor) -> Tensor:
        """Returns the token int64 [N] whose share of the mass holds its uniform: first its tile, then its share."""
        # Masses of tiles, relative to the highest logit of all.
        weight = torch.exp((levels - highest).double() * self._sharpness[: self._rows])
        by_tile = shares.sum(dim=-1, dtype=torch.float64) * weight
        tile, target = _descend(by_tile, uniforms * by_tile.sum(dim=-1))
        row = torch.arange(len(tile), device=tile.device)
        masses = shares[row, tile].double()
        share, target = _descend(masses, target / weight[row, tile])
        first = tile * TILE + share * SHARE
        ids = first[:, None] + torch.arange(SHARE, device=first.device)
        last = self._head.vocab_size - 1
        there = ids <= last
        ids = ids.clamp_max(last)
        if (allowed := self._allows(ids)) is not None:
            there &= allowed
        p = torch.exp((self._capped_at(ids) - levels[row, tile][:, None]) * self._sharpness[: self._rows])
        p = p.double() * there
        # Computed again, p may differ from what was summed by a rounding; what was summed is what the target is of.
        p = p * (masses[row, share] / p.sum(dim=-1))[:, None]
        return (first + _descend(p, target)[0]).clamp_max(last)

    def _log_probs(self, ids: Tensor, log_mass: Tensor) -> Tensor:
        """Returns float32 [N, A] of the token ids that are asked for."""
        z = self._capped_at(ids) - self._highest[: self._rows]
        log_probs = z.double() * self._sharpness[: self._rows] - log_mass[:, None]
        allowed = self._allows(ids)
        return (log_probs if allowed is None else log_probs.masked_fill(~allowed, -torch.inf)).float()

    def _allows(self, ids: Tensor) -> Tensor | None:
        """Returns bool [N, A]: whether each row may have each of its ids; None where rows are not limited."""
        if self._sets is None or self._query.allowed is None:
            return None
        return self._query.allowed.masks[self._sets[: self._rows, None], ids]

    def _capped_at(self, ids: Tensor) -> Tensor:
        """Returns the rows' logits for ids int64 [N, A], float32 [N, A] in units of the softcap."""
        raw = ids.new_empty(ids.shape, dtype=torch.float32)
        step = max(1, _MAX_GATHERED // (ids.shape[1] * self._hidden.shape[1]))
        for start in range(0, ids.shape[0], step):
            rows = slice(start, start + step)
            keys = F.embedding(ids[rows], self._head.embedding).float()
            raw[rows] = keys.mul_(self._hidden[: self._rows][rows, None]).sum(dim=-1)
        return self._capped(raw.to(self._hidden.dtype))

    def _capped(self, logits: Tensor) -> Tensor:
        """Returns logits in units of the softcap, float32; it may overwrite them."""
        return logits.float().div_(self._head.softcap).tanh_()


def _descend(masses: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the masses float64 [N, m] holds target [N] of their sum, and where in it the target lies.

    Never one of no mass, and always a valid index, be it that rounding put the target past the sum or that masses are
    not numbers.
    """
    cumulated = masses.cumsum(dim=-1)
    # The last mass above 0 takes what lies past the sum.
    target = torch.minimum(target, cumulated[:, -1] * (1 - 2.0**-52))
    index = torch.searchsorted(cumulated, target[:, None], right=True).clamp_max(masses.shape[1] - 1)
    before = cumulated.gather(1, index) - masses.gather(1, index)
    return index[:, 0], (target - before[:, 0]).clamp_min(0)
