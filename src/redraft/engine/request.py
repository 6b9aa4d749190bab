"""What the engine is asked for. Token ids only, no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redraft.generation.modes import ANSWERING_MODES

if TYPE_CHECKING:
    from redraft.constraints.tokens import TokenAutomaton
    from redraft.diffusion.settings import SamplerSettings
    from redraft.diffusion.start import CanvasStart
    from redraft.engine.parts import Parts


MAX_TOP = 20
"""The most of a position's likeliest tokens that can be asked for."""

MODE_NAMES = (*ANSWERING_MODES, "scoring")


class QueueFull(RuntimeError):
    """The engine holds as many waiting requests as it may: ask again later."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One answer that is asked for.

    id: the caller's name for it, unlike that of any other request the engine holds; nothing is computed from it.
    prompt: token ids. settings: sampler settings, seed and index among them. stop_ids: tokens that end the answer as an
    EOS does (None: the model's EOS ids). drafts: whether an event is wanted for every denoising step. top: how many of
    each position's likeliest tokens are wanted, with every draft and with what is committed. mode: "diffusion";
    "autoregressive": one token after the other by encoder passes, the likeliest each or, at a temperature, one that is
    drawn; "verified": the same answer, drafted on canvases and kept as far as the encoder pass would have written it;
    "auto": the same again, drafted while that is faster; or "scoring": the log-probabilities of the prompt's own
    tokens, by encoder passes. constraint: the language that the answer is to be of, built for the model's vocabulary
    and with the stop ids as its end. adapter: the name of one that the model holds, None for the base alone. start:
    what its first canvas begins as, of which tokens may be pinned; None for noise. is_background: whether it gives way
    to all that are not. is_scored: whether the encoder pass reads an answer of mode "diffusion" once it is written, for
    the log-probabilities of its tokens. parts: prompts that are answered in place of `prompt`, each under these
    settings, and what makes one answer of theirs, whose tokens are told when all of them are there.
    """

    id: str
    prompt: tuple[int, ...]
    settings: "SamplerSettings"
    stop_ids: tuple[int, ...] | None = None
    drafts: bool = False
    top: int = 0
    mode: str = MODE_NAMES[0]
    constraint: "TokenAutomaton | None" = None
    adapter: str | None = None
    start: "CanvasStart | None" = None
    is_background: bool = False
    is_scored: bool = False
    parts: "Parts | None" = None

    def __post_init__(self) -> None:
        if not 0 <= self.top <= MAX_TOP:
            raise ValueError(f"top is {self.top}, must lie between 0 and {MAX_TOP}")
        if self.mode not in MODE_NAMES:
            raise ValueError(f"mode is {self.mode!r}, must be one of {', '.join(MODE_NAMES)}")
        if self.mode != "diffusion" and self.start is not None:
            raise ValueError(f"mode {self.mode!r} takes no start of a canvas; leave it out, or use mode 'diffusion'")
        if self.mode != "diffusion" and self.is_scored:
            raise ValueError(f"mode {self.mode!r} scores its tokens where `top` asks for it; leave is_scored out")
        if self.mode == "autoregressive" and self.drafts:
            raise ValueError("an autoregressive answer has no drafts; leave them out, or use mode 'verified'")
        if self.parts is not None and (self.start is not None or self.mode == "scoring"):
            raise ValueError("an answer in parts has no start of a canvas, and no prompt to score; leave them out")
        if self.mode == "scoring" and (self.drafts or self.stop_ids is not None or self.constraint is not None):
            raise ValueError(
                "a prompt that is scored has no drafts, no constraint and no stop ids of its own; leave them out"
            )
