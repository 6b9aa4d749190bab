"""The scheduler: which tokens of which requests the next forward reads. Imports no torch.

Requests wait in one queue and are admitted in its order, as long as the caches of those admitted may come to hold no
more than the limit. Of the admitted, the one that was served longest ago comes first and is served by every forward,
so nobody starves: no request waits longer than the others take to be served once.
"""

from collections import deque
from dataclasses import dataclass, field

from redraft.engine.request import Phase, QueueFull

PROMPT_SHARE = 4
"""While others wait, one prompt takes at most this part of a forward: long prompts and short answers run together."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the engine takes on at a time. ValueError for a value below 1.

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


@dataclass(eq=False, kw_only=True)
class Task:
    """What the scheduler knows of a request.

    canvas_length and most_tokens (what its cache may come to hold) stay; phase and unread (tokens that an encoder pass
    has yet to read) are the engine's to write after each forward; branch: where in the unread tokens a chunk has to
    end, because a prefix that others share ends there; served: the last forward that served it, the scheduler's own.
    """

    canvas_length: int
    most_tokens: int
    phase: Phase = Phase.PREFILL
    unread: int = 0
    branch: int | None = None
    served: int = -1


@dataclass(frozen=True)
class Piece:
    """What one forward reads of one request: `encoded` unread tokens, then, if `denoises`, its canvas."""

    task: Task
    encoded: int
    denoises: bool

    @property
    def tokens(self) -> int:
        return self.encoded + self.denoises * self.task.canvas_length


@dataclass
class Scheduler:
    """Queue, admission and the choice of each forward's pieces."""

    limits: Limits
    waiting: deque[Task] = field(default_factory=deque)
    admitted: list[Task] = field(default_factory=list)
    forwards: int = 0

    def check(self, task: Task) -> None:
        """ValueError for a request that these limits can never serve."""
        if task.canvas_length > self.limits.forward_tokens:
            raise ValueError(
                f"a canvas of {task.canvas_length} tokens does not fit into a forward of at most "
                f"{self.limits.forward_tokens}: shorten canvas_length or raise forward_tokens"
            )
        if task.most_tokens > self.limits.admitted_tokens:
            raise ValueError(
                f"the request may come to hold {task.most_tokens} tokens, more than the engine's "
                f"{self.limits.admitted_tokens}: lower max_new_tokens, shorten the prompt or raise admitted_tokens"
            )

    def submit(self, task: Task) -> None:
        """Puts a request into the queue. QueueFull where that is full, ValueError as `check` has it."""
        self.check(task)
        if len(self.waiting) >= self.limits.queued_requests:
            raise QueueFull(f"{len(self.waiting)} requests are waiting, the limit is {self.limits.queued_requests}")
        self.waiting.append(task)

    def remove(self, task: Task) -> None:
        """Forgets a request that has ended, wherever it stands."""
        if task in self.admitted:
            self.admitted.remove(task)
        else:
            self.waiting.remove(task)

    def admit(self) -> list[Task]:
        """Moves requests from the queue into work while there is room, in order; returns those moved."""
        moved = []
        held = sum(task.most_tokens for task in self.admitted)
        while self.waiting and len(self.admitted) < self.limits.admitted_requests:
            held += self.waiting[0].most_tokens
            if held > self.limits.admitted_tokens:
                break
            moved.append(self.waiting.popleft())
            self.admitted.append(moved[-1])
        return moved

    def plan(self) -> list[Piece]:
        """The pieces of the next forward, at most forward_tokens in all; empty only where nothing is admitted.

        A prompt's last chunk, and a commit, take the next canvas's first step along where it fits.
        """
        left = self.limits.forward_tokens
        share = max(1, left // PROMPT_SHARE)
        pieces: dict[Task, Piece] = {}
        order = sorted(self.admitted, key=lambda task: task.served)
        for task in order:
            piece = _piece(task, left, share)
            if piece.tokens:
                pieces[task] = piece
                left -= piece.tokens
        # What is left goes to prompts, to the one that came first first: so it has its first canvas soonest.
        for task in self.admitted:
            if task.unread and left:
                before = pieces.get(task, Piece(task, 0, False))
                pieces[task] = _piece(task, left + before.tokens, left + before.tokens)
                left -= pieces[task].tokens - before.tokens
        for task in pieces:
            task.served = self.forwards
        self.forwards += 1
        return list(pieces.values())


def _piece(task: Task, room: int, share: int) -> Piece:
    """The most that `room` tokens have of a request, and not more than `share` of its prompt."""
    most = min(task.unread, room, share if task.phase is Phase.PREFILL else room)
    encoded = most if task.branch is None else min(most, task.branch)
    return Piece(task, encoded, encoded == task.unread and task.canvas_length <= room - encoded)
