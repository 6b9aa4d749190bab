"""An answer that is held to a language: what its constraint decides in each denoising step.

The rest rule. The model accepts, samples and conditions itself, as without a constraint; the drafts and the result are
the constraint's: the likeliest canvas of the language. Only when the model's own draft is at rest outside the language,
or is outside when half of the steps are spent, is the canvas *guided* to its end: its tokens are then one joint sample
of the distribution under the condition that the canvas belongs to the language.

A canvas stops by the entropies under that condition, but not before the model's own draft is at rest too, and in the
language, or the canvas is guided. By themselves they would stop it too early: what is independent at each position
counts the same evidence many times. Where blanks of a given text are filled they do, once the likeliest canvas is at
rest: what the model would write in the place of the given text says nothing about the blanks.

C canvas length, K classes of tokens, S states of the automaton, N rows.
"""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redraft.constraints.conditioning import Conditioned
from redraft.constraints.tokens import NEVER, TokenAutomaton
from redraft.diffusion.randomness import Purpose
from redraft.diffusion.sampler import KEPT, CanvasState, Overruling
from redraft.model.head import OutputHead
from redraft.model.readout.classes import ClassMap, ClassReadout, RowClasses
from redraft.model.readout.query import AllowedTokens, Readout, ReadoutQuery
from redraft.model.readout.streamed import streamed_readout

Ints = NDArray[np.int64]
NOTHING_LEFT = -1
"""Tokens left behind a canvas that has to hold the end of the answer: the end itself costs none."""
MAX_CANVAS_ARCS = 2**23
"""Arcs times positions of a canvas. In a step the condition takes some 4 ns of each, without our kernels 25, for which
all that the engine answers has to wait."""
PATIENCE = 3
"""How often the model's own draft, outside the language, repeats itself before the canvas is guided: until then the
model often mends it. Chosen on the tuning sets of `redraft eval extract` and `normalize`."""
MANY = 2**62
"""Steps that a draft counts as unchanged for where nothing is to keep it from stopping."""
TIE = 1e-9
"""Nats between two canvases that are equally likely but for rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ConstrainedCanvas:
    """A canvas under a constraint, between two denoising steps. A step makes a new one and changes none.

    classes: those of the automaton, as the readout reads them. state: of the automaton, where the canvas begins.
    end_classes [k]: the classes of the tokens that end the answer; from position `limit` on there may be no others.
    ends bool [S]: the states that the canvas may end in. own int64 [C]: the model's own draft of the last step, None
    before the first; rested: for how many steps it has been the same. is_guided: whether tokens are drawn from the
    language, log_mass: as in `DenoisingStep`, of the last step.
    """

    automaton: TokenAutomaton
    classes: ClassMap
    state: int
    end_classes: Ints
    limit: int
    ends: NDArray[np.bool_]
    own: Tensor | None = None
    rested: int = 0
    is_guided: bool = False
    log_mass: float = 0.0

    @classmethod
    def starting(
        cls, automaton: TokenAutomaton, state: int, length: int, stop_ids: Collection[int], *, room: int, further: int
    ) -> "ConstrainedCanvas":
        """Returns the constraint on a canvas that begins in `state`.

        room: the tokens that the answer may still have; further: the canvases that fit into the context behind it. The
        canvas may end where the rest of an answer fits into both.
        """
        left = max(NOTHING_LEFT, min(room - length, further * length))
        return cls(
            automaton=automaton,
            classes=ClassMap(torch.from_numpy(automaton.class_of_token), automaton.num_classes),
            state=state,
            end_classes=end_classes(automaton, stop_ids),
            limit=room,
            ends=automaton.distance - 1 <= left,
        )

    def allows(self, canvas: Ints) -> bool:
        """Tells whether a canvas int64 [C] is of the language, and the rest of the answer fits behind it."""
        if not np.isin(self.automaton.class_of_token[canvas[self.limit :]], self.end_classes).all():
            return False
        state = self.automaton.state_after(canvas.tolist(), self.state)
        return state is not None and bool(self.ends[state])

    def limited(self, read: ClassReadout, state: CanvasState) -> ClassReadout:
        """Returns what is read of the classes [C, K] where positions are pinned, or lie beyond the limit."""
        count = read.log_mass.shape[1]
        forbidden = torch.zeros_like(read.log_mass, dtype=torch.bool)
        if state.pinned is not None:
            pinned, tokens = state.pinned[0].cpu(), state.tokens[0].cpu()
            at = self.classes.columns[tokens]
            forbidden = pinned[:, None] & (at[:, None] != torch.arange(count))
            held = pinned[:, None].expand(-1, count)
            read = ClassReadout(
                log_mass=read.log_mass.masked_fill(held, 0.0),
                entropy=read.entropy.masked_fill(held, 0.0),
                best_token=torch.where(held, tokens[:, None], read.best_token),
                best_log_prob=read.best_log_prob.masked_fill(held, 0.0),
            )
        others = torch.ones(count, dtype=torch.bool)
        others[self.end_classes] = False
        forbidden[self.limit :] |= others
        return dataclasses.replace(
            read,
            log_mass=read.log_mass.masked_fill(forbidden, -torch.inf),
            best_log_prob=read.best_log_prob.masked_fill(forbidden, -torch.inf),
        )

    def turns_to(self, own: Tensor) -> "ConstrainedCanvas":
        """Returns this with the model's own draft of the step that is being taken."""
        is_same = self.own is not None and torch.equal(own, self.own)
        return dataclasses.replace(self, own=own, rested=self.rested + 1 if is_same else 0)

    def gives_up(self, state: CanvasState) -> bool:
        """Tells whether the model's own draft, outside the language, is there to stay: the rest rule."""
        (begun,), (counter,) = state.begun, state.counters
        return self.rested >= PATIENCE or 2 * (counter.step - 1) <= begun


def end_classes(automaton: TokenAutomaton, stop_ids: Collection[int]) -> Ints:
    """Returns the classes of the tokens that end an answer.

    Raises ValueError unless the automaton ends where a stop id stands, and nowhere else.
    """
    source = np.repeat(np.arange(automaton.num_states), np.diff(automaton.first))
    is_ending = (automaton.target == automaton.done) & (source != automaton.done)
    classes = np.unique(automaton.arc_class[is_ending]).astype(np.int64)
    ends = np.isin(automaton.class_of_token, classes)
    stops = np.zeros_like(ends)
    stops[list(stop_ids)] = True
    cuts = stops & ~ends & (automaton.class_of_token != NEVER)
    if (ends & ~stops).any() or cuts.any():
        raise ValueError(
            f"the constraint ends at the tokens {_few(ends)}, but the answer at {_few(stops)}: build it with the stop "
            "ids as end_ids"
        )
    return classes


def _few(is_member: NDArray[np.bool_]) -> str:
    ids = np.flatnonzero(is_member)
    return ", ".join(map(str, ids[:5])) + (" …" if len(ids) > 5 else "")


def check_constraint(
    automaton: TokenAutomaton,
    *,
    vocab_size: int,
    stop_ids: Collection[int],
    prompt_length: int,
    canvas_length: int,
    max_new_tokens: int,
    max_context: int,
) -> None:
    """Raises ValueError unless a model can write an answer of the language, in so many tokens and whole canvases.

    And for an automaton that would hold up the engine.
    """
    if (size := len(automaton.class_of_token)) != vocab_size:
        raise ValueError(f"the constraint is built for a vocabulary of {size} tokens, the model has {vocab_size}")
    end_classes(automaton, stop_ids)
    if automaton.num_arcs * canvas_length > MAX_CANVAS_ARCS:
        raise ValueError(
            f"the constraint has {automaton.num_arcs:,} arcs, for canvases of {canvas_length} tokens the limit is "
            f"{MAX_CANVAS_ARCS // canvas_length:,}: give its texts lower limits of length, or none, or take shorter "
            "canvases"
        )
    shortest = automaton.min_tokens
    if shortest > max_new_tokens:
        raise ValueError(
            f"the shortest answer of this constraint has {shortest} tokens, max_tokens is {max_new_tokens}"
        )
    canvases = (max_context - prompt_length) // canvas_length
    if shortest > canvases * canvas_length:
        raise ValueError(
            f"the shortest answer of this constraint has {shortest} tokens, and behind a prompt of {prompt_length} the "
            f"context of {max_context} has room for {canvases} canvases of {canvas_length}: shorten the prompt"
        )


def classes_of(canvases: Sequence[ConstrainedCanvas | None], states: Sequence[CanvasState]) -> tuple[RowClasses, ...]:
    """Returns what a readout of the canvases' rows, one canvas behind the other, is asked for their constraints."""
    asked, end = [], 0
    for canvas, state in zip(canvases, states, strict=True):
        start, end = end, end + state.length
        if canvas is not None:
            asked.append(RowClasses(start, end, canvas.classes))
    return tuple(asked)


def constrain(
    canvases: Sequence[ConstrainedCanvas | None],
    states: Sequence[CanvasState],
    head: OutputHead,
    hidden: Tensor,
    readout: Readout,
) -> tuple[list[ConstrainedCanvas | None], Overruling | None]:
    """Takes canvases one step further, each under its constraint or under none.

    states: each of one canvas, before the step; hidden [N, D] and readout, with the `classes_of` the canvases: of their
    rows, one canvas behind the other.
    Returns what each constraint comes to, and what takes the place of the readout; None where none is constrained.
    """
    stepped = list(canvases)
    if all(canvas is None for canvas in canvases):
        return stepped, None
    overruling = Overruling(
        sample=torch.full_like(readout.argmax, KEPT),
        draft=readout.argmax.clone(),
        entropy=readout.entropy.clone(),
        unchanged=torch.full_like(readout.argmax, MANY),
    )
    end, reads = 0, iter(readout.classes)
    for i, (canvas, state) in enumerate(zip(canvases, states, strict=True)):
        rows = slice(end, end + state.length)
        end = rows.stop
        if canvas is None:
            continue
        read = next(reads)
        # What is not finite is the sampler's to report.
        if bool(readout.entropy[rows].isfinite().all()):
            stepped[i], own = _step(canvas, state, read, head, hidden[rows], readout.argmax[rows])
            for name, value in vars(own).items():
                getattr(overruling, name)[rows] = value.to(readout.argmax.device)
    return stepped, overruling


def _step(
    canvas: ConstrainedCanvas,
    state: CanvasState,
    read: ClassReadout,
    head: OutputHead,
    hidden: Tensor,
    argmax: Tensor,
) -> tuple[ConstrainedCanvas, Overruling]:
    """Takes one canvas of C rows one step further."""
    automaton = canvas.automaton
    read = canvas.limited(read, state)
    recursions = None if head.kernels is None else head.kernels.recursions
    given = Conditioned(automaton, read.log_mass.numpy(), canvas.state, canvas.ends, recursions)
    if given.log_mass == -np.inf:
        raise ValueError("the pinned tokens do not fit the constraint: no answer of its language has them there")
    classes, log_prob = given.best(read.best_log_prob.numpy())
    own = argmax.cpu() if state.pinned is None else torch.where(state.pinned[0], state.tokens[0], argmax).cpu()
    draft = _likeliest(read, classes)
    is_inside = torch.equal(own, draft)
    likeliest = float(read.best_log_prob.amax(dim=1).sum())
    if not is_inside and log_prob >= likeliest - TIE and canvas.allows(own.numpy()):
        # Of several likeliest canvases the model's own is the draft.
        is_inside, draft = True, own
    canvas = canvas.turns_to(own)
    is_guided = canvas.is_guided or (not is_inside and canvas.gives_up(state))
    sample = torch.full_like(draft, KEPT)
    if is_guided:
        sample = draft
        if state.settings[0].temperature:
            uniforms = state.counters[0].uniforms(state.length, Purpose.JOINT)
            sample = _sample_within(given.sample(uniforms.numpy()), automaton, read, state, head, hidden)
    entropy = torch.from_numpy(given.entropy(read.entropy.numpy())).float()
    waits_for_own = not is_guided and not automaton.is_filled
    if not is_inside and waits_for_own:
        entropy = torch.full_like(entropy, torch.inf)
    overruling = Overruling(
        sample=sample,
        draft=draft,
        entropy=entropy,
        unchanged=torch.full_like(draft, canvas.rested if waits_for_own else MANY),
    )
    return dataclasses.replace(canvas, is_guided=is_guided, log_mass=given.log_mass), overruling


def _likeliest(read: ClassReadout, classes: Ints) -> Tensor:
    """Returns the likeliest tokens int64 [C] of these classes."""
    return read.best_token.gather(1, torch.from_numpy(classes)[:, None])[:, 0]


def _sample_within(
    classes: Ints,
    automaton: TokenAutomaton,
    read: ClassReadout,
    state: CanvasState,
    head: OutputHead,
    hidden: Tensor,
) -> Tensor:
    """Draws a token int64 [C] of each position's class: those that have one token only are not read again."""
    sample = _likeliest(read, classes)
    sizes = np.bincount(automaton.class_of_token[automaton.class_of_token != NEVER])
    has_several = sizes[classes] > 1
    if not has_several.any():
        return sample
    chosen, sets = np.unique(classes[has_several], return_inverse=True)
    rows = torch.from_numpy(np.flatnonzero(has_several)).to(hidden.device)
    masks = torch.from_numpy(automaton.class_of_token == chosen[:, None])
    uniforms = state.counters[0].uniforms(state.length, Purpose.WITHIN, device=hidden.device)
    within = ReadoutQuery(
        state.temperatures[0],
        uniforms[rows],
        allowed=AllowedTokens(masks.to(hidden.device), torch.from_numpy(sets).to(hidden.device)),
        soft_embedding=False,
    )
    sample[rows.cpu()] = streamed_readout(head, hidden[rows], within).sample.cpu()
    return sample
