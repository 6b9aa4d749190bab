"""The denoising step's decisions for any number of canvases: which tokens stay, which are noise again, and the end.

    init ──▶ state ──(the model reads state.tokens)──▶ readout ──▶ step(state, readout) ──▶ state ──…──▶ finalize
                                                                     accept · renoise · stop

B canvases, C canvas length, D hidden size; N = B · C rows.
"""

import copy
import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from redraft.diffusion.noise import initial_canvas, renoise, started
from redraft.diffusion.randomness import Counter, Purpose, tokens_of_many, uniforms_of_many
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.start import CanvasStart

Rule = TypeVar("Rule")

NO_DRAFT = -1
"""What CanvasState.unchanged is before the first step: there is no draft that another could be equal to."""

KEPT = -1
"""Stands in an overruling's sample where the model's own is kept."""


class CanvasReadout(Protocol):
    """What the model says of the N rows of a state's canvases, under `state.temperatures`.

    sample, argmax int64 [N]; entropy float32 [N] in nats; soft_embedding float32 [N, D], None where nobody needs it.
    """

    @property
    def sample(self) -> Tensor: ...
    @property
    def argmax(self) -> Tensor: ...
    @property
    def entropy(self) -> Tensor: ...
    @property
    def soft_embedding(self) -> Tensor | None: ...

    def select(self, rows: Tensor) -> "CanvasReadout":
        """Returns what is said of some rows."""


@dataclass(frozen=True, kw_only=True)
class Overruling:
    """What a constraint puts in the place of what a readout says, of the same N rows.

    draft int64 [N] takes the place of the argmax, entropy float32 [N] that of the entropy in stopping only, and sample
    int64 [N] that of the sample where it is not KEPT. Acceptance and soft embeddings stay the model's. Rows without a
    constraint repeat what the readout says. unchanged int64 [N], the same for all rows of a canvas: its draft counts as
    unchanged for at most so many steps.
    """

    sample: Tensor
    draft: Tensor
    entropy: Tensor
    unchanged: Tensor

    def select(self, rows: Tensor) -> "Overruling":
        """Returns what is said of some rows."""
        return Overruling(**{name: value[rows] for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class CanvasState:
    """B canvases of one length between two denoising steps. A step makes a new state and changes none.

    settings and counters [B]: each canvas's own; `counters[i].step` is how many steps canvas i has left, the next one
    included, and begun[i] how many it had before the first. tokens int64 [B, C]: what the next step reads. active bool
    [B]: canvases that are not finished; of the others a step changes nothing but the counter and the soft embedding,
    which nobody reads any more. draft int64 [B, C]: the last argmax, or what overruled it; unchanged int64 [B]: how
    many drafts in a row before it were equal to it, NO_DRAFT before the first step. soft_embedding float32 [B, C, D]:
    the next step's self-conditioning, None where no canvas has any. accepted bool [B, C] and entropy float32 [B, C] are
    the model's in the last step. pinned bool [B, C]: positions that hold a given token in every canvas and draft; None
    pins nothing.
    """

    settings: tuple[SamplerSettings, ...]
    counters: tuple[Counter, ...]
    begun: tuple[int, ...]
    tokens: Tensor
    active: Tensor
    draft: Tensor
    unchanged: Tensor
    accepted: Tensor
    entropy: Tensor
    soft_embedding: Tensor | None = None
    pinned: Tensor | None = None

    @property
    def length(self) -> int:
        return self.tokens.shape[1]

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperature of each canvas's next step."""
        return tuple(
            settings.scaled_schedule.at(counter.step, settings.steps)
            for settings, counter in zip(self.settings, self.counters, strict=True)
        )

    @classmethod
    def starting(
        cls,
        tokens: Tensor,
        settings: Sequence[SamplerSettings],
        counters: Sequence[Counter],
        *,
        pinned: Tensor | None = None,
    ) -> "CanvasState":
        """Makes the state before the first step of canvases that begin as tokens int64 [B, C]."""
        count, device = tokens.shape[0], tokens.device
        return cls(
            settings=tuple(settings),
            counters=tuple(counters),
            begun=tuple(counter.step for counter in counters),
            tokens=tokens,
            active=torch.ones(count, dtype=torch.bool, device=device),
            draft=tokens,
            unchanged=torch.full((count,), NO_DRAFT, device=device),
            accepted=torch.zeros_like(tokens, dtype=torch.bool),
            entropy=torch.zeros_like(tokens, dtype=torch.float32),
            pinned=pinned,
        )

    @classmethod
    def joined(cls, states: Sequence["CanvasState"]) -> "CanvasState":
        """Puts canvases of one length into one state, without what the next step does not read (soft embeddings)."""
        if len(states) == 1:
            return states[0]
        pinned = None
        if any(state.pinned is not None for state in states):
            pinned = torch.cat(
                [torch.zeros_like(one.tokens, dtype=torch.bool) if one.pinned is None else one.pinned for one in states]
            )
        tensors = ("tokens", "active", "draft", "unchanged", "accepted", "entropy")
        return cls(
            settings=tuple(one for state in states for one in state.settings),
            counters=tuple(one for state in states for one in state.counters),
            begun=tuple(one for state in states for one in state.begun),
            pinned=pinned,
            **{name: torch.cat([getattr(state, name) for state in states]) for name in tensors},
        )

    def split(self) -> list["CanvasState"]:
        """Gives every canvas a state of its own, which holds on to nothing of the others."""
        if len(self.settings) == 1:
            return [self]

        def part(value: Any, at: slice) -> Any:
            return value[at].clone() if isinstance(value, Tensor) else value and value[at]

        names = [one.name for one in dataclasses.fields(self)]
        return [
            CanvasState(**{name: part(getattr(self, name), slice(i, i + 1)) for name in names})
            for i in range(len(self.settings))
        ]


class Sampler:
    """Starts canvases, takes them one step further, and reads off the result. The vocabulary has V tokens."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def init(
        self,
        settings: Sequence[SamplerSettings],
        counters: Sequence[Counter],
        length: int,
        *,
        device: torch.device | str = "cpu",
        starts: Sequence[CanvasStart | None] = (),
    ) -> CanvasState:
        """Starts B canvases of `length` tokens as noise, or as each of `starts` says.

        counters: the place of each canvas (seed, index, canvas).
        """
        # The noise that a canvas starts as belongs to no step.
        places = [dataclasses.replace(counter, step=0) for counter in counters]
        tokens = torch.stack([initial_canvas(place, length, self.vocab_size, device) for place in places])
        begun, pinned = [one.steps for one in settings], None
        for i, start in enumerate(starts):
            if start is not None:
                begun[i] = start.first_step(begun[i])
                tokens[i] = started(tokens[i], start, places[i])
                if start.pinned:
                    pinned = torch.zeros_like(tokens, dtype=torch.bool) if pinned is None else pinned
                    pinned[i, sorted(start.pinned)] = True
        first = [dataclasses.replace(at, step=step) for at, step in zip(places, begun, strict=True)]
        return CanvasState.starting(tokens, settings, first, pinned=pinned)

    def uniforms(self, *states: CanvasState) -> Tensor:
        """Draws the random numbers, float64 [N], that decide the samples of the next step, canvas after canvas."""
        counters = [counter for state in states for counter in state.counters]
        lengths = [state.length for state in states for _ in state.counters]
        return uniforms_of_many(counters, lengths, Purpose.SAMPLE, states[0].tokens.device)

    def step(self, state: CanvasState, readout: CanvasReadout, overruling: Overruling | None = None) -> CanvasState:
        """Takes every active canvas one step further; what is overruled stands in the place of what is read."""
        shape, device = state.tokens.shape, state.tokens.device
        sample, argmax, entropy = (one.view(shape) for one in (readout.sample, readout.argmax, readout.entropy))
        if any(settings.temperature == 0 for settings in state.settings):
            greedy = torch.tensor([settings.temperature == 0 for settings in state.settings], device=device)
            sample = torch.where(greedy[:, None], argmax, sample)
        draft, stop_entropy = argmax, entropy
        if overruling is not None:
            draft, stop_entropy, other = (
                one.view(shape) for one in (overruling.draft, overruling.entropy, overruling.sample)
            )
            sample = torch.where(other == KEPT, sample, other)
        if state.pinned is not None:
            entropy, stop_entropy = (one.masked_fill(state.pinned, 0.0) for one in (entropy, stop_entropy))
            sample, draft = (torch.where(state.pinned, state.tokens, one) for one in (sample, draft))
            # With the mean of the others, what is pinned has no part in stopping.
            num_open = (~state.pinned).sum(dim=-1, keepdim=True)
            mean = stop_entropy.sum(dim=-1, keepdim=True) / num_open.clamp(min=1)
            stop_entropy = torch.where(state.pinned, mean, stop_entropy)
        noise = tokens_of_many(state.counters, shape[1], self.vocab_size, Purpose.RENOISE, device)
        left = torch.tensor([counter.step for counter in state.counters], device=device)
        steps = torch.tensor([settings.steps for settings in state.settings], device=device)
        held = torch.zeros_like(left) if state.pinned is None else state.pinned.sum(dim=-1)
        accepted = _decide(
            [settings.acceptance for settings in state.settings],
            lambda rule, rows: rule.accept(entropy[rows], left[rows], steps[rows], held[rows]),
            torch.empty(0, 1, dtype=entropy.dtype, device=device),
        )
        # Pinned positions keep what they hold: their sample is that token.
        accepted = accepted if state.pinned is None else accepted | state.pinned
        same = (draft == state.draft).all(dim=-1) & (state.unchanged != NO_DRAFT)
        unchanged = torch.where(same, state.unchanged + 1, 0)
        at_rest = unchanged
        if overruling is not None:
            at_rest = torch.minimum(unchanged, overruling.unchanged.view(shape)[:, 0])
        stopped = _decide(
            [settings.stopping for settings in state.settings],
            lambda rule, rows: rule.stops(stop_entropy[rows], at_rest[rows]),
            torch.empty(0, dtype=torch.float64, device=device),
        )

        def where_active(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(state.active[:, None], new, old)

        return dataclasses.replace(
            state,
            counters=tuple(dataclasses.replace(at, step=max(0, at.step - 1)) for at in state.counters),
            tokens=where_active(renoise(sample, accepted, noise.view(shape)), state.tokens),
            active=state.active & ~stopped & (left > 1),
            draft=where_active(draft, state.draft),
            unchanged=torch.where(state.active, unchanged, state.unchanged),
            accepted=where_active(accepted, state.accepted),
            entropy=where_active(entropy, state.entropy),
            soft_embedding=None if readout.soft_embedding is None else readout.soft_embedding.view(*shape, -1),
        )

    def step_each(
        self, states: Sequence[CanvasState], readout: CanvasReadout, overruling: Overruling | None = None
    ) -> list[CanvasState]:
        """Takes canvases of any lengths, a state for each, one step further: those of one length are decided together.

        readout, overruling: their rows are those of the states, one behind the other.
        """
        groups: dict[int, list[int]] = defaultdict(list)
        for i, state in enumerate(states):
            groups[state.length].append(i)
        if len(groups) == 1:
            return self.step(CanvasState.joined(states), readout, overruling).split()
        ends = list(itertools.accumulate(state.length for state in states))
        stepped: dict[int, CanvasState] = {}
        for length, members in groups.items():
            rows = torch.cat([torch.arange(ends[i] - length, ends[i]) for i in members])
            joined = CanvasState.joined([states[i] for i in members])
            chosen = None if overruling is None else overruling.select(rows)
            together = self.step(joined, readout.select(rows), chosen)
            stepped |= zip(members, together.split(), strict=True)
        return [stepped[i] for i in range(len(states))]

    @staticmethod
    def verdicts(*states: CanvasState) -> list[tuple[bool, bool]]:
        """Fetches whether each canvas's last entropies are finite and whether it is active: one synchronisation."""
        finite = torch.cat([state.entropy.isfinite().all(dim=-1) for state in states])
        active = torch.cat([state.active for state in states])
        return [(bool(ok), bool(goes_on)) for ok, goes_on in torch.stack((finite, active), dim=1).tolist()]

    def finalize(self, state: CanvasState) -> Tensor:
        """Returns the result of each canvas, int64 [B, C]: its last draft."""
        return state.draft


def stacked(rules: Sequence[Rule], like: Tensor) -> Rule:
    """Makes one rule of several of one kind: its numbers become tensors [B, …] of `like`'s dtype and dimensions.

    Where all are equal it is the first of them, whose numbers need no tensors.
    """
    if rules.count(rules[0]) == len(rules):
        return rules[0]
    rule = copy.copy(rules[0])
    for one in dataclasses.fields(rule):  # type: ignore[arg-type]
        values = torch.tensor([getattr(rule, one.name) for rule in rules], dtype=like.dtype, device=like.device)
        # The copy is ours alone, and its checks are those of single numbers.
        object.__setattr__(rule, one.name, values.view(-1, *like.shape[1:]))
    return rule


def _decide(rules: Sequence[Rule], decide: Callable[[Rule, Any], Tensor], like: Tensor) -> Tensor:
    """What `decide` says for all canvases, of which those with rules of one kind are decided together."""
    kinds = {type(rule) for rule in rules}
    if len(kinds) == 1:
        return decide(stacked(rules, like), slice(None))
    decided: dict[int, Tensor] = {}
    for kind in kinds:
        rows = [i for i, rule in enumerate(rules) if type(rule) is kind]
        decided |= zip(rows, decide(stacked([rules[i] for i in rows], like), rows), strict=True)
    return torch.stack([decided[i] for i in range(len(rules))])
