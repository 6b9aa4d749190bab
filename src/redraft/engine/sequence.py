"""How far one request has come: what it has read and written, and what follows from each forward.

D hidden size, C canvas length.
"""

import secrets
import time
from collections.abc import Iterator

from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import CanvasState
from redraft.diffusion.settings import MAX_SEED
from redraft.engine.request import CanvasCommitted, Event, Finished, Phase, Request, StepTaken
from redraft.engine.scheduler import Piece, Task
from redraft.generation import DenoisingStep, Generation, cut_canvas
from redraft.generation.result import check_prompt
from redraft.model import KVCache, ModelConfig


class Progress:
    """The state of a request from its submission to its end. ValueError for a request the model cannot answer.

    canvas is the state of the canvas under way (None: yet to be started); the runner computes it.
    """

    def __init__(self, request: Request, config: ModelConfig) -> None:
        settings = request.settings
        length = settings.canvas_length or config.canvas_length
        check_prompt(request.prompt, length, config.vocab_size, config.max_context)
        self.stop_ids = config.eos_ids if request.stop_ids is None else request.stop_ids
        if bad := [token for token in self.stop_ids if not 0 <= token < config.vocab_size]:
            raise ValueError(f"stop ids {bad} lie outside the vocabulary of {config.vocab_size}")
        self.request = request
        self.settings = settings
        self.config = config
        self.seed = secrets.randbelow(MAX_SEED) if settings.seed is None else settings.seed
        longest = len(request.prompt) + -(-settings.max_new_tokens // length) * length
        self.task = Task(canvas_length=length, most_tokens=min(longest, config.max_context))
        self.cache = KVCache(config)
        self.unread: list[int] = []
        self.canvas: CanvasState | None = None
        self._taken = 0
        self._answer: list[int] = []
        self._canvases: list[tuple[int, ...]] = []
        self._steps_per_canvas: list[int] = []
        self._seconds = {"prefill": 0.0, "denoising": 0.0, "commit": 0.0}
        self._last = 0.0

    @property
    def counter(self) -> Counter:
        """The place of the canvas under way."""
        return Counter(self.seed, self.settings.choice, len(self._canvases))

    @property
    def committed(self) -> list[int]:
        """The tokens whose keys and values the cache holds."""
        written = [token for canvas in self._canvases for token in canvas]
        return [*self.request.prompt, *written][: self.cache.length]

    def begin(self, cache: KVCache | None, branch: int | None) -> None:
        """Takes up work with what `cache` holds of the prompt; a chunk is to end at `branch` tokens of it."""
        self._last = time.perf_counter()
        if cache is not None:
            self.cache = cache
        self.unread = list(self.request.prompt[self.cache.length :])
        self.task.unread = len(self.unread)
        self.task.branch = None if branch is None else branch - self.cache.length
        if not self.unread:
            self.task.phase = Phase.DENOISE

    def encoded(self, piece: Piece) -> bool:
        """A forward has read a piece's unread tokens; returns whether the cache now holds a prefix worth keeping."""
        count = piece.encoded
        del self.unread[:count]
        task = self.task
        task.unread = len(self.unread)
        if not self.unread:
            if not piece.denoises:
                self._lap(task.phase.value)
            task.phase, task.branch = Phase.DENOISE, None
            return True
        if task.branch is None:
            return False
        task.branch = task.branch - count or None
        return task.branch is None

    def denoised(self, step: DenoisingStep, state: CanvasState) -> Iterator[Event]:
        """A denoising step was made; yields what there is to tell of it."""
        self._lap("denoising")
        self._taken += 1
        if self.request.drafts:
            yield StepTaken(self.request.id, step)
        if not step.finished:
            self.canvas = state
            return
        canvas = step.draft.tolist()
        self._steps_per_canvas.append(self._taken)
        self._canvases.append(tuple(canvas))
        self.canvas, self._taken = None, 0
        part, reason = cut_canvas(canvas, self.stop_ids, self.settings.max_new_tokens - len(self._answer))
        self._answer += part
        yield CanvasCommitted(self.request.id, tuple(part), self._steps_per_canvas[-1], step.top)
        if reason is None and self.cache.length + 2 * self.task.canvas_length > self.config.max_context:
            reason = "length"
        if reason is not None:
            self.task.phase = Phase.DONE
            yield Finished(self.request.id, self._generation(reason))
            return
        self.unread, self.task.unread, self.task.phase = canvas, len(canvas), Phase.COMMIT

    def _generation(self, reason: str) -> Generation:
        written = len(self._answer) + (reason == "stop")
        return Generation(
            token_ids=tuple(self._answer),
            finish_reason=reason,
            seed=self.seed,
            steps_per_canvas=tuple(self._steps_per_canvas),
            tokens_per_forward=written / sum(self._steps_per_canvas),
            prefill_seconds=self._seconds["prefill"],
            denoising_seconds=self._seconds["denoising"],
            commit_seconds=self._seconds["commit"],
            canvases=tuple(self._canvases),
        )

    def _lap(self, phase: str) -> None:
        """Wall clock since the last lap, others' work included; a forward with a canvas in it counts as denoising."""
        now = time.perf_counter()
        self._seconds[phase] += now - self._last
        self._last = now
