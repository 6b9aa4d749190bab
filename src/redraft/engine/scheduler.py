"""The scheduler: which tokens of which sequences the next forward reads. Imports no torch.

Sequences wait in one queue and are admitted in its order, as long as the caches of those admitted may come to hold no
more than the limit. Of the admitted, the one that was served longest ago comes first, and every forward serves it; a
new one counts as served by the forward before it came. So none starves: a sequence waits no longer than the others take
to be served once. Background requests stand behind all others in the queue, and beside others they have a turn now and
then.
"""

from collections import deque
from dataclasses import dataclass, field

from redraft.engine.request import QueueFull
from redraft.engine.sequence import Chunk, Phase, Sequence
from redraft.utils.words import counted

MAX_PROMPT_FRACTION = 1 / 4
"""While others wait, one prompt takes at most this part of a forward: long prompts and short answers run together."""

BACKGROUND_TURN = 16
"""In one of so many forwards a background request is served beside others."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the engine takes on at a time. Raises ValueError for a value below 1.

    forward_tokens: rows of one forward, at least the longest canvas. admitted_requests and admitted_tokens: requests
    in work, and the tokens that their caches may come to hold, prompts and longest answers counted. queued_requests:
    how many more may wait. prefix_tokens: committed tokens kept for later prompts that begin with them; 0 keeps none.
    """

    forward_tokens: int = 2048
    admitted_requests: int = 32
    admitted_tokens: int = 131_072
    queued_requests: int = 1024
    prefix_tokens: int = 16_384

    def __post_init__(self) -> None:
        for name in ("forward_tokens", "admitted_requests", "admitted_tokens", "queued_requests"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.prefix_tokens < 0:
            raise ValueError(f"prefix_tokens is {self.prefix_tokens}, must be at least 0")


@dataclass
class Scheduler:
    """Queue, admission and the choice of each forward's chunks."""

    limits: Limits
    waiting: deque[Sequence] = field(default_factory=deque)
    admitted: list[Sequence] = field(default_factory=list)
    forwards: int = 0

    def check(self, sequence: Sequence) -> None:
        """Raises ValueError for a sequence that these limits can never serve."""
        if sequence.canvas_length > self.limits.forward_tokens:
            raise ValueError(
                f"a canvas of {sequence.canvas_length} tokens does not fit into a forward of at most "
                f"{self.limits.forward_tokens}: shorten canvas_length or raise forward_tokens"
            )
        if sequence.max_tokens > self.limits.admitted_tokens:
            raise ValueError(
                f"the request may come to hold {sequence.max_tokens} tokens, more than the engine's "
                f"{self.limits.admitted_tokens}: lower max_new_tokens, shorten the prompt or raise admitted_tokens"
            )

    def submit(self, *sequences: Sequence) -> None:
        """Puts the sequences of a request into the queue. Raises QueueFull where that is full, and what `check` raises.

        They count as one: those of a long text may be more than the queue has room for.
        """
        for sequence in sequences:
            self.check(sequence)
        if (held := self.requests_waiting) >= self.limits.queued_requests:
            raise QueueFull(f"the queue holds {counted(held, 'request')}, the limit is {self.limits.queued_requests}")
        # Behind its own kind: whoever has time waits behind all who have none.
        behind = len(self.waiting) if sequences[0].is_background else self._first_background
        for at, sequence in enumerate(sequences, start=behind):
            self.waiting.insert(at, sequence)

    def follow(self, sequence: Sequence) -> None:
        """Puts a further sequence of a request that is in work before all others of its kind."""
        self.waiting.insert(self._first_background if sequence.is_background else 0, sequence)

    @property
    def _first_background(self) -> int:
        kinds = (waiting.is_background for waiting in self.waiting)
        return next((at for at, is_background in enumerate(kinds) if is_background), len(self.waiting))

    @property
    def requests_waiting(self) -> int:
        """The requests of which nothing is in work. May be read from any thread: the copy is made at once."""
        return sum(sequence.part == 0 for sequence in tuple(self.waiting))

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is."""
        for held in (self.admitted, self.waiting):
            if sequence in held:
                held.remove(sequence)

    def admit(self) -> list[Sequence]:
        """Moves sequences from the queue into work while there is room, in order; returns those moved."""
        moved = []
        held = sum(sequence.max_tokens for sequence in self.admitted)
        while self.waiting and len(self.admitted) < self.limits.admitted_requests:
            held += self.waiting[0].max_tokens
            if held > self.limits.admitted_tokens:
                break
            moved.append(self.waiting.popleft())
            # As if the last forward had served it: ahead of those that wait, short requests could keep coming in.
            moved[-1].last_served = self.forwards - 1
            self.admitted.append(moved[-1])
        return moved

    def plan(self) -> list[Chunk]:
        """Returns the chunks of the next forward, at most forward_tokens in all; empty only where nothing is admitted.

        A prompt's last chunk, and a commit, take the next canvas's first step along where it fits.
        """
        left = self.limits.forward_tokens
        share = max(1, int(left * MAX_PROMPT_FRACTION))
        chunks: dict[Sequence, Chunk] = {}
        served = self._served()
        order = sorted(served, key=lambda sequence: sequence.last_served)
        for sequence in order:
            chunk = _chunk(sequence, left, share)
            if chunk.tokens:
                chunks[sequence] = chunk
                left -= chunk.tokens
        # What is left goes to prompts, the oldest first, so that its first canvas starts soonest.
        for sequence in served:
            if sequence.pending and left:
                before = chunks.get(sequence, Chunk(sequence, 0, False))
                chunks[sequence] = _chunk(sequence, left + before.tokens, left + before.tokens)
                left -= chunks[sequence].tokens - before.tokens
        for sequence in chunks:
            sequence.last_served = self.forwards
        self.forwards += 1
        return list(chunks.values())

    def _served(self) -> list[Sequence]:
        """Returns the sequences that the next forward may serve.

        Beside others one background sequence has a turn, in one of BACKGROUND_TURN forwards: it costs them little, and
        none of them starves.
        """
        others = [sequence for sequence in self.admitted if not sequence.is_background]
        if not others or len(others) == len(self.admitted):
            return self.admitted
        if self.forwards % BACKGROUND_TURN:
            return others
        background = (sequence for sequence in self.admitted if sequence.is_background)
        return [*others, min(background, key=lambda sequence: sequence.last_served)]


def _chunk(sequence: Sequence, room: int, share: int) -> Chunk:
    """Returns the most of a sequence that fits into `room` tokens, with at most `share` of its prompt."""
    most = min(len(sequence.pending), room, share if sequence.phase is Phase.PREFILL else room)
    encode = most if sequence.branch is None else min(most, sequence.branch)
    has_room = 0 < sequence.canvas_rows <= room - encode
    return Chunk(sequence, encode, denoises=encode == len(sequence.pending) and has_room)
