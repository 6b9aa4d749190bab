"""The readout by classes of tokens: what a constraint needs to know of a canvas, and no tensor of [N, V].

N rows, D hidden, V vocabulary, t tokens of a tile, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from redraft.model.batch import pad_rows
from redraft.model.head import OutputHead
from redraft.model.linear.methods import multiply
from redraft.model.readout.streamed import TILE


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


def read_classes(
    head: OutputHead, hidden: Tensor, temperature: float, class_of_token: Tensor, num_classes: int
) -> ClassReadout:
    """Reads hidden [N, D] by classes. class_of_token int64 [V]: −1 for tokens of no class; every class has a token.

    A running maximum of each class keeps its sums in range, as one of all does in the streamed readout. Those sums are
    of float64: between the classes of a row lie up to two softcaps over the temperature.
    """
    rows, device = hidden.shape[0], hidden.device
    padded = pad_rows(hidden)
    # The last column is that of the tokens of no class: the whole vocabulary's mass needs them.
    shape = (rows, num_classes + 1)
    highest = torch.full(shape, -torch.inf, dtype=torch.float64, device=device)
    mass, moment = torch.zeros_like(highest), torch.zeros_like(highest)
    best = torch.zeros(shape, dtype=torch.int64, device=device)
    columns = torch.where(class_of_token < 0, num_classes, class_of_token).to(device)
    for start in range(0, head.vocab_size, TILE):
        stop = min(start + TILE, head.vocab_size)
        if head.packed is None:
            logits = multiply(padded, head.embedding[start:stop])
        else:
            logits = head.packed.logits(padded, start // TILE)
        capped = torch.tanh(logits[:rows, : stop - start].float() / head.softcap).double() * head.softcap / temperature
        column = columns[start:stop].expand(rows, -1)
        peak = torch.full_like(highest, -torch.inf).scatter_reduce_(1, column, capped, "amax")
        ids = torch.arange(start, stop, device=device).expand(rows, -1)
        ids = torch.where(capped == peak.gather(1, column), ids, head.vocab_size)
        first = torch.full_like(best, head.vocab_size).scatter_reduce_(1, column, ids, "amin")
        best = torch.where(peak > highest, first, best)
        peak = torch.maximum(peak, highest)
        shift = torch.where(highest.isfinite(), highest - peak, 0)
        moment = shift.exp() * (moment + shift * mass)
        mass = shift.exp() * mass
        highest = peak
        log_p = capped - peak.gather(1, column)
        p = log_p.exp()
        mass.scatter_add_(1, column, p)
        moment.scatter_add_(1, column, p * log_p)
    log_mass = highest + mass.log()
    whole = log_mass.logsumexp(dim=1, keepdim=True)
    entropy = mass.log() - moment / mass
    found = (log_mass - whole, entropy, best, highest - whole)
    return ClassReadout(*(one[:, :num_classes].cpu() for one in found))
