"""The readout, fast: one stream over tiles of the vocabulary, as attention does it, and never a tensor of [N, V].

The embedding's rows are keys and values at once: logits are products with them, the soft embedding is their average.
A running maximum keeps the exponentials in range (Milakov, Gimelshein: Online normalizer calculation for softmax,
2018). For sampling by inverse CDF the mass of every share of SHARE tokens is kept; when the total is known, the one
share that holds a row's uniform number is computed again for that row.

N rows, D hidden, V vocabulary, t tokens of a tile, q shares of a tile, A tokens asked for of each row.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.model.batch import pad_rows
from redraft.model.head import OutputHead
from redraft.model.linear.methods import multiply
from redraft.model.native.kernels import SHARE
from redraft.model.readout.plain import NO_LOGIT
from redraft.model.readout.query import Readout, ReadoutQuery, TopTokens, concatenate

TILE = 1024
"""Tokens read at a time: with STREAM_ROWS rows a tile of bfloat16 logits is 0.5 MB, which stays in a core's cache."""

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
    if query.allowed is None:
        return _read(head, hidden, query)
    # Rows that are limited are read in another way, those beside them as ever.
    limited = query.allowed.rows >= 0
    places = [rows for rows in ((~limited).nonzero()[:, 0], limited.nonzero()[:, 0]) if len(rows)]
    parts = []
    for rows in places:
        part = query.select(rows)
        parts.append(_read(head, hidden[rows], part if limited[rows[0]] else replace(part, allowed=None)))
    return concatenate(parts).select(torch.cat(places).argsort())


def _read(head: OutputHead, hidden: Tensor, query: ReadoutQuery) -> Readout:
    """Reads rows that are all limited or all not."""
    block = STREAM_ROWS if head.kernels is None else KERNEL_STREAM_ROWS
    blocks = [slice(start, start + block) for start in range(0, hidden.shape[0], block)]
    return concatenate([_VocabularyStream(head, hidden[rows], query.select(rows)).readout() for rows in blocks])


@dataclass
class _Running:
    """What is known of the rows when some tiles have been read. Logits are in units of the softcap, z in [-1, 1].

    `highest` float32 [N, 1] and `argmax` int64 [N] are of all tiles so far; `mass` float64 [N], `moment` float64 [N]
    and `soft` float32 [N, D] are the sums of p, p · log p and p · E, with p relative to `highest`.
    """

    highest: Tensor
    argmax: Tensor
    mass: Tensor
    moment: Tensor
    soft: Tensor


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
    """One pass over the vocabulary for a block of rows."""

    def __init__(self, head: OutputHead, hidden: Tensor, query: ReadoutQuery) -> None:
        self._head, self._query = head, query
        self._rows = n = hidden.shape[0]
        self._hidden = pad_rows(hidden)
        rows, device = self._hidden.shape[0], hidden.device
        temperature = torch.as_tensor(query.temperature, dtype=torch.float64, device=device).expand(n)
        # z · sharpness is a logit under its temperature.
        self._sharpness = F.pad(head.softcap / temperature, (0, rows - n), value=1.0).float()[:, None]
        self._top = None
        if query.top:
            self._top = _RunningTop(rows, min(query.top, head.vocab_size), head.softcap, device)
        # Of each row, if they are limited; padding has one that is read anyway.
        self._sets = (
            None
            if query.allowed is None
            else F.pad(query.allowed.rows, (0, rows - n), value=int(query.allowed.rows[0]))
        )

    def readout(self) -> Readout:
        """Reads the whole vocabulary."""
        n, query = self._rows, self._query
        starts = range(0, self._head.vocab_size, TILE)
        rows, device = self._hidden.shape[0], self._hidden.device
        # What rows that are limited find in a tile without a token for them lies below.
        lowest = -torch.inf if self._sets is None else _FLOOR
        running = _Running(
            highest=torch.full((rows, 1), lowest, dtype=torch.float32, device=device),
            argmax=torch.zeros(rows, dtype=torch.int64, device=device),
            mass=torch.zeros(rows, dtype=torch.float64, device=device),
            moment=torch.zeros(rows, dtype=torch.float64, device=device),
            soft=torch.zeros(rows, self._hidden.shape[1], dtype=torch.float32, device=device),
        )
        shares = torch.zeros(rows, len(starts), TILE // SHARE, dtype=torch.float32, device=device)
        # What the masses of a tile's shares are relative to.
        levels = torch.empty(rows, len(starts), dtype=torch.float32, device=device)
        for tile, start in enumerate(starts):
            self._read(start, min(start + TILE, self._head.vocab_size), running, shares[:, tile])
            levels[:, tile : tile + 1] = running.highest
        log_mass = running.mass.log()
        return Readout(
            sample=self._sample(query.uniforms, shares[:n], levels[:n], running.highest[:n]),
            argmax=running.argmax[:n],
            entropy=(log_mass - running.moment / running.mass)[:n].float(),
            soft_embedding=running.soft.mul_((self._head.scale / running.mass[:, None]).float())[:n],
            log_probs=None if query.token_ids is None else self._log_probs(running.highest[:n], log_mass[:n]),
            top=None if self._top is None else self._top.tokens().select(slice(n)),
        )

    def _read(self, start: int, stop: int, running: _Running, shares: Tensor) -> None:
        """Takes tokens [start, stop) into the sums, and writes the masses [N, q] of their shares."""
        kernels, packed, keys = self._head.kernels, self._head.packed, self._head.embedding[start:stop]
        forbidden = None
        if self._query.allowed is not None and self._sets is not None:
            allowed = self._query.allowed.masks[:, start:stop][self._sets]
            if not allowed.any():
                return
            forbidden = ~allowed
        logits = multiply(self._hidden, keys) if packed is None else packed.logits(self._hidden, start // TILE)
        if kernels is not None and forbidden is None:
            p, shrunk = kernels.read_tile(
                logits, self._head.softcap, self._sharpness, running.highest, running.argmax, running.mass,
                running.moment, shares, start,
            )  # fmt: skip
            if self._top is not None:
                self._top.read(self._capped(logits), start)
        else:
            z = self._capped(logits)
            if forbidden is not None:
                z.masked_fill_(forbidden, NO_LOGIT)
            if self._top is not None:
                self._top.read(z, start)
            p, shrunk = self._read_capped(z, start, running, shares)
        part = multiply(p[:, : stop - start], keys.t()) if packed is None else packed.average(p, start // TILE)
        if kernels is not None:
            kernels.accumulate(running.soft, shrunk, part)
        else:
            running.soft.mul_(shrunk).add_(part)

    def _read_capped(self, z: Tensor, start: int, running: _Running, shares: Tensor) -> tuple[Tensor, Tensor]:
        """`Kernels.read_tile` for z [N, t], which it overwrites."""
        if filling := -z.shape[1] % SHARE:
            z = F.pad(z, (0, filling), value=NO_LOGIT)
        in_shares = z.view(z.shape[0], -1, SHARE)
        peaks = in_shares.amax(dim=-1)
        peak = peaks.amax(dim=-1, keepdim=True)
        # The argmax of a long row is slow to find, that of its shares and then of one share is not.
        share = peaks.argmax(dim=-1)
        best = in_shares[torch.arange(z.shape[0], device=z.device), share].argmax(dim=-1) + share * SHARE + start
        running.argmax = torch.where((peak > running.highest)[:, 0], best, running.argmax)
        highest = torch.maximum(peak, running.highest)
        # How much the sums so far shrink, now that they are relative to a higher peak.
        shift = (running.highest - highest) * self._sharpness
        shrunk = torch.exp(shift)
        running.highest = highest

        log_p = z.sub_(highest).mul_(self._sharpness)
        p = log_p.exp()
        masses = p.view_as(in_shares).sum(dim=-1)
        kept = shrunk[:, 0].double()
        # Of p · log p = p · (log p - shift) + p · shift; where nothing has been summed yet, shift is infinite.
        carried = torch.where(kept > 0, running.mass * shift[:, 0].double(), 0)
        running.moment = (running.moment + carried) * kept + (log_p.mul_(p)).sum(dim=-1).double()
        running.mass = running.mass * kept + masses.sum(dim=-1, dtype=torch.float64)
        shares[:, : masses.shape[1]] = masses
        return p.to(self._hidden.dtype), shrunk

    def _sample(self, uniform: Tensor, shares: Tensor, levels: Tensor, highest: Tensor) -> Tensor:
        """Returns the token int64 [N] whose share of the mass holds `uniform`: first its tile, then its share."""
        # Masses of tiles, relative to the highest logit of all.
        weight = torch.exp((levels - highest).double() * self._sharpness[: self._rows])
        by_tile = shares.sum(dim=-1, dtype=torch.float64) * weight
        tile, target = _descend(by_tile, uniform * by_tile.sum(dim=-1))
        row = torch.arange(len(tile), device=tile.device)
        masses = shares[row, tile].double()
        share, target = _descend(masses, target / weight[row, tile])
        first = tile * TILE + share * SHARE
        ids = first[:, None] + torch.arange(SHARE, device=first.device)
        last = self._head.vocab_size - 1
        there = ids <= last
        ids = ids.clamp_max(last)
        if self._query.allowed is not None:
            there &= self._query.allowed.allows(ids)
        p = torch.exp((self._capped_at(ids) - levels[row, tile][:, None]) * self._sharpness[: self._rows])
        p = p.double() * there
        # Computed again, p may differ from what was summed by a rounding; what was summed is what the target is of.
        p = p * (masses[row, share] / p.sum(dim=-1))[:, None]
        return (first + _descend(p, target)[0]).clamp_max(last)

    def _log_probs(self, highest: Tensor, log_mass: Tensor) -> Tensor:
        """Returns float32 [N, A] of the token ids that are asked for."""
        ids, allowed = self._query.token_ids, self._query.allowed
        assert ids is not None
        log_probs = (self._capped_at(ids) - highest).double() * self._sharpness[: self._rows] - log_mass[:, None]
        return (log_probs if allowed is None else log_probs.masked_fill(~allowed.allows(ids), -torch.inf)).float()

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
