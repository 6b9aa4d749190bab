"""A request that is decoded token by token, one pass a turn, beside those with a canvas: to compare, not to be fast."""

import time

from redraft.engine.request import Admitted, CanvasCommitted, Event, Failed, Finished, Request
from redraft.generation import autoregressive_tokens
from redraft.generation.result import check_prompt
from redraft.model import Transformer


class Autoregression:
    """The answer of one request under way. ValueError for a prompt that the model cannot answer."""

    def __init__(self, request: Request, model: Transformer) -> None:
        config = model.config
        check_prompt(request.prompt, 1, config.vocab_size, config.max_context)
        self._id, self._begun = request.id, False
        self._tokens = autoregressive_tokens(model, request.prompt, request.settings)

    def step(self) -> Event:
        """One encoder pass: the token it committed, or how the answer ended. The first time only that it has begun."""
        if not self._begun:
            self._begun = True
            return Admitted(self._id, time.perf_counter(), 0)
        try:
            # Passes, but none of them denoises.
            return CanvasCommitted(self._id, (next(self._tokens),), steps=0)
        except StopIteration as end:
            return Finished(self._id, end.value)
        except Exception as error:
            return Failed(self._id, error)
