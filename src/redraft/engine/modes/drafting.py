"""Drafts for answers that are written causally: what their canvases begin as, and when a draft is verified.

    canvas ──denoiser passes──▶ draft ──one encoder pass──▶ longest prefix that agrees, and one token more ──▶ answer
       ▲                                                        │
       └─────────── the rest, moved on, and noise behind ◀──────┘

C rows of a canvas, D hidden size.
"""

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, replace
from typing import Any

import torch

from redraft.diffusion.drafting import moved_on
from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import CanvasState, Sampler
from redraft.diffusion.schedule import LinearTemperature
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.diffusion.stopping import EveryPositionConfident
from redraft.engine.costs import DraftYield
from redraft.engine.request import Request
from redraft.engine.sequence import Phase, Sequence
from redraft.generation.autoregressive import TokenRecord
from redraft.generation.result import Generation, Verification
from redraft.model.config import ModelConfig
from redraft.model.head import OutputHead


@dataclass(frozen=True, kw_only=True)
class DraftingPolicy:
    """When a draft is verified. It decides how long an answer takes, never what it is.

    canvas_length: rows of a canvas, for a model whose own canvas is not shorter. steps: most denoising steps before a
    draft is verified. entropy_limit: it is verified earlier once no position, up to its first EOS, has an entropy above
    so many nats. min_kept: what is left of a draft is verified at once, without another step, where the last pass kept
    at least so many tokens. Chosen by measurement on the bundled model.
    """

    canvas_length: int = 24
    steps: int = 4
    entropy_limit: float = 1.0
    min_kept: int = 2


class DraftedRecord(TokenRecord):
    """The record of an answer that may be drafted. rounds, drafted_rounds, denoiser_passes: see `Verification`.

    yielded: what its rounds of drafts took and gave.
    """

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.rounds = self.drafted_rounds = self.denoiser_passes = 0
        self.yielded = DraftYield()
        self._told_steps = self._noted_passes = 0

    def count(self, *, is_step: bool, has_draft: bool, has_tokens: bool) -> None:
        super().count(is_step=is_step, has_draft=has_draft, has_tokens=has_tokens)
        self.denoiser_passes += is_step
        self.rounds += has_tokens
        self.drafted_rounds += has_draft

    def take_steps(self) -> int:
        before, self._told_steps = self._told_steps, self.denoiser_passes
        return self.denoiser_passes - before

    def round(self, draft: int, kept: int) -> DraftYield | None:
        """Returns what the round took and gave that kept so many tokens, one without drafts: None.

        draft: how many tokens were verified.
        """
        passes, self._noted_passes = self.denoiser_passes - self._noted_passes, self.denoiser_passes
        return DraftYield(1.0, passes, draft, kept) if passes or draft else None

    def generation(self, finish_reason: str) -> Generation:
        found = Verification(self.rounds, self.drafted_rounds, self.denoiser_passes, self.written / self.rounds)
        return replace(super().generation(finish_reason), verification=found)


class Drafting:
    """Makes the canvases of sequences and takes them from round to round.

    A canvas follows what the cache holds. Its first row is the last kept token, which the cache does not hold yet; in
    the forward that reads the end of the prompt there is none.
    """

    def __init__(self, config: ModelConfig, device: torch.device, policy: DraftingPolicy) -> None:
        self._config, self._device, self._policy = config, device, policy
        self.sampler = Sampler(config.vocab_size)

    def length(self, request: Request) -> int:
        """Returns the rows of a request's canvases; 0 where it can have none."""
        config = self._config
        length = request.settings.canvas_length or min(self._policy.canvas_length, config.canvas_length)
        # With one row there would be no draft, and the context may have no room for more.
        return length if 1 < length <= config.max_context - len(request.prompt) else 0

    def has_room(self, sequence: Sequence) -> bool:
        """Tells whether a canvas fits behind what the cache holds."""
        return 0 < sequence.canvas_length <= self._config.max_context - sequence.cache.length

    def first(self, sequence: Sequence, last: int | None) -> CanvasState:
        """Starts a canvas: behind the prompt, or one whose first row holds the last kept token."""
        settings, length = self._round_settings(sequence.request.settings), sequence.canvas_length
        # Each round is the next canvas; drafts need no seed of their own.
        place = Counter(sequence.record.seed, sequence.request.settings.index)
        start = None if last is None else CanvasStart.holding([last])
        return self.sampler.init([settings], [place], length, device=self._device, starts=[start])

    def advanced(
        self, sequence: Sequence, stepped: CanvasState | None, kept: Tokens[int], head: OutputHead
    ) -> tuple[CanvasState | None, list[int] | None]:
        """Returns what becomes of a sequence's canvas, and the draft that is to be verified next, if any.

        stepped: the canvas after a denoising step, None where there was none. kept: the tokens of a causal pass.
        """
        state = sequence.canvas if stepped is None else stepped
        # In the prompt's forward the canvas stands right behind the prompt, else from the last kept token on.
        moves = 0 if sequence.phase is Phase.PREFILL else len(kept)
        if state is None or moves >= state.length:
            return None, None
        old_rows = state.length - moves
        state = self._moved(state, sequence, moves, kept[-1] if kept else int(state.tokens[0, 0]), head)
        stop_ids, draft = sequence.record.stop_ids, None
        if self._is_ready(state, stop_ids) if stepped is not None else len(kept) >= self._policy.min_kept:
            draft = until_stop(state.draft[0, 1:old_rows].tolist(), stop_ids) if old_rows > 1 else None
        return replace(state, active=torch.ones_like(state.active)), draft

    def _moved(self, state: CanvasState, sequence: Sequence, moves: int, first: int, head: OutputHead) -> CanvasState:
        """Returns the canvas moved on by so many tokens, with the last kept token in its first row.

        Where it has moved a new round begins.
        """
        (at,) = state.counters
        place = replace(at, canvas=at.canvas + 1) if moves else at
        moved = moved_on(
            state, moves, first, head.embedding[first].float() * head.scale,
            settings=self._round_settings(sequence.request.settings), counter=place,
            vocab_size=self._config.vocab_size,
        )  # fmt: skip
        return moved if moves else replace(moved, counters=state.counters, active=state.active)

    def _is_ready(self, state: CanvasState, stop_ids: Tokens[int]) -> bool:
        """Whether a draft is to be verified: its round is over, or it is sure enough up to the first EOS."""
        if not bool(state.active[0]):
            return True
        until = len(until_stop(state.draft[0, 1:].tolist(), stop_ids)) + 2
        return bool(state.entropy[0, 1:until].amax() <= self._policy.entropy_limit)

    def _round_settings(self, settings: SamplerSettings) -> SamplerSettings:
        """Returns the settings of a round: one temperature, the schedule's middle, and what is read as the sample."""
        schedule = settings.scaled_schedule
        middle = (schedule.t_min + schedule.t_max) / 2
        return replace(
            settings,
            steps=min(self._policy.steps, settings.steps),
            temperature=0.0,
            schedule=LinearTemperature(t_min=middle, t_max=middle),
            stopping=EveryPositionConfident(limit=self._policy.entropy_limit),
        )


def until_stop(draft: list[int], stop_ids: Tokens[int]) -> list[int]:
    """Returns what precedes the first of `stop_ids`: the pass over it shows whether the answer ends there."""
    return draft[: next((i for i, token in enumerate(draft) if token in stop_ids), len(draft))]
