"""The readout, fast: one stream over tiles of the vocabulary, as attention does it, and never a tensor of [N, V].

The embedding's rows are keys and values at once: logits are products with them, the soft embedding is their average.
A running maximum keeps the exponentials in range (Milakov, Gimelshein: Online normalizer calculation for softmax,
2018). For sampling by inverse CDF the mass of every share of SHARE tokens is kept; when the total is known, the one
share that holds a row's uniform number is computed again for that row.

N rows, D hidden, V vocabulary, t tokens of a tile, q shares of a tile, A token ids asked for.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.model.batch import pad_rows
from redraft.model.linear.products import multiply
from redraft.model.native.kernels import SHARE
from redraft.model.readout.plain import Readout
from redraft.model.transformer import Transformer

TILE = 1024
"""Tokens read at a time: with ROW_BLOCK rows a tile of bfloat16 logits is 0.5 MB, which stays in a core's cache."""

ROW_BLOCK = 128
"""Rows that share one stream over the vocabulary, twice as many where kernels do with fewer temporary tensors: bounds
what is kept for a share of it to [ROW_BLOCK, V / SHARE]."""

_GATHERED = 2**18
"""Elements of the embedding gathered at a time."""

_NOTHING = -1e20
"""Fills a tile up to whole shares: a logit of no mass. Minus infinity would make the entropy's 0 × log 0 a NaN."""


def streamed_readout(
    model: Transformer,
    hidden: Tensor,
    temperature: Tensor | float,
    uniform: Tensor,
    *,
    asked: Tensor | None = None,
) -> Readout:
    """What `plain_readout` gives, in memory that does not grow with N × V.

    hidden [N, D]; temperature > 0, one number or float [N]; uniform float64 [N] in [0, 1); asked int64 [N, A]: token
    ids whose log-probabilities are wanted. A row's result does not depend on the rows beside it.

    With float32 weights all but the sums over tiles is float32; with bfloat16 ones the products are bfloat16, with what
    that rounds (logits, and a tile's part of the soft embedding).
    """
    n = hidden.shape[0]
    if not isinstance(temperature, Tensor):
        temperature = torch.full((n,), temperature, dtype=torch.float64, device=hidden.device)
    parts = []
    block = ROW_BLOCK if model.kernels is None else 2 * ROW_BLOCK
    for start in range(0, n, block):
        rows = slice(start, start + block)
        stream = _Stream(model, hidden[rows], temperature[rows])
        parts.append(stream.readout(uniform[rows], None if asked is None else asked[rows]))
    if len(parts) == 1:
        return parts[0]
    return Readout(
        sample=torch.cat([part.sample for part in parts]),
        argmax=torch.cat([part.argmax for part in parts]),
        entropy=torch.cat([part.entropy for part in parts]),
        soft_embedding=torch.cat([part.soft_embedding for part in parts]),
        log_probs=None if asked is None else torch.cat([p.log_probs for p in parts if p.log_probs is not None]),
    )


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


class _Stream:
    """One pass over the vocabulary for a block of rows."""

    def __init__(self, model: Transformer, hidden: Tensor, temperature: Tensor) -> None:
        self._kernels, self._packed = model.kernels, model.packed_embedding
        self._embedding = model.embed_tokens.weight
        self._scale = model.embedding_scale
        self._softcap = model.config.softcap
        self._rows = hidden.shape[0]
        self._hidden = pad_rows(hidden)
        filling = self._hidden.shape[0] - self._rows
        # z · sharpness is a logit under its temperature.
        self._sharpness = F.pad(self._softcap / temperature.double(), (0, filling), value=1.0).float()[:, None]

    def readout(self, uniform: Tensor, asked: Tensor | None) -> Readout:
        n = self._rows
        vocab_size = self._embedding.shape[0]
        starts = range(0, vocab_size, TILE)
        rows = self._hidden.shape[0]
        device = self._hidden.device
        running = _Running(
            highest=torch.full((rows, 1), -torch.inf, dtype=torch.float32, device=device),
            argmax=torch.zeros(rows, dtype=torch.int64, device=device),
            mass=torch.zeros(rows, dtype=torch.float64, device=device),
            moment=torch.zeros(rows, dtype=torch.float64, device=device),
            soft=torch.zeros(rows, self._hidden.shape[1], dtype=torch.float32, device=device),
        )
        shares = torch.zeros(rows, len(starts), TILE // SHARE, dtype=torch.float32, device=device)
        # What the masses of a tile's shares are relative to.
        levels = torch.empty(rows, len(starts), dtype=torch.float32, device=device)
        for tile, start in enumerate(starts):
            self._read(start, min(start + TILE, vocab_size), running, shares[:, tile])
            levels[:, tile : tile + 1] = running.highest
        log_mass = running.mass.log()
        return Readout(
            sample=self._sample(uniform, shares[:n], levels[:n], running.highest[:n]),
            argmax=running.argmax[:n],
            entropy=(log_mass - running.moment / running.mass)[:n].float(),
            soft_embedding=running.soft.mul_((self._scale / running.mass[:, None]).float())[:n],
            log_probs=None if asked is None else self._log_probs(asked, running.highest[:n], log_mass[:n]),
        )

    def _read(self, start: int, stop: int, running: _Running, shares: Tensor) -> None:
        """Takes tokens [start, stop) into the sums, and writes the masses [N, q] of their shares."""
        keys = self._embedding[start:stop]
        packed = self._packed
        logits = multiply(self._hidden, keys) if packed is None else packed.logits(self._hidden, start // TILE)
        if self._kernels is not None:
            p, shrunk = self._kernels.read_tile(
                logits, self._softcap, self._sharpness, running.highest, running.argmax, running.mass, running.moment,
                shares, start,
            )  # fmt: skip
            part = multiply(p[:, : stop - start], keys.t()) if packed is None else packed.average(p, start // TILE)
            self._kernels.accumulate(running.soft, shrunk, part)
            return
        z = logits.float().div_(self._softcap).tanh_()
        if filling := -(stop - start) % SHARE:
            z = F.pad(z, (0, filling), value=_NOTHING)
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
        running.soft.mul_(shrunk).add_(multiply(p[:, : stop - start].to(keys.dtype), keys.t()))
        shares[:, : masses.shape[1]] = masses

    def _sample(self, uniform: Tensor, shares: Tensor, levels: Tensor, highest: Tensor) -> Tensor:
        """The token int64 [N] whose share of the cumulated mass holds `uniform`: first its tile, then its share."""
        # Masses of tiles, relative to the highest logit of all.
        weight = torch.exp((levels - highest).double() * self._sharpness[: self._rows])
        by_tile = shares.sum(dim=-1, dtype=torch.float64) * weight
        tile, target = _descend(by_tile, uniform * by_tile.sum(dim=-1))
        row = torch.arange(len(tile), device=tile.device)
        masses = shares[row, tile].double()
        share, target = _descend(masses, target / weight[row, tile])
        first = tile * TILE + share * SHARE
        ids = first[:, None] + torch.arange(SHARE, device=first.device)
        there = ids < self._embedding.shape[0]
        z = self._capped(ids.clamp_max(self._embedding.shape[0] - 1))
        p = torch.exp((z - levels[row, tile][:, None]) * self._sharpness[: self._rows]).double() * there
        # Computed again, p may differ from what was summed by a rounding; what was summed is what the target is of.
        p = p * (masses[row, share] / p.sum(dim=-1))[:, None]
        return (first + _descend(p, target)[0]).clamp_max(self._embedding.shape[0] - 1)

    def _log_probs(self, asked: Tensor, highest: Tensor, log_mass: Tensor) -> Tensor:
        """asked int64 [N, A] → float32 [N, A]."""
        z = self._capped(asked)
        return ((z - highest).double() * self._sharpness[: self._rows] - log_mass[:, None]).float()

    def _capped(self, ids: Tensor) -> Tensor:
        """ids int64 [N, A] → the rows' logits for them, float32 [N, A] in units of the softcap."""
        raw = ids.new_empty(ids.shape, dtype=torch.float32)
        step = max(1, _GATHERED // (ids.shape[1] * self._hidden.shape[1]))
        for start in range(0, ids.shape[0], step):
            rows = slice(start, start + step)
            keys = F.embedding(ids[rows], self._embedding).float()
            raw[rows] = keys.mul_(self._hidden[: self._rows][rows, None]).sum(dim=-1)
        return raw.to(self._hidden.dtype).float().div_(self._softcap).tanh_()


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
