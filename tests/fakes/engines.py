"""An engine that writes what it is told to, at once."""

import asyncio

import redraft
from redraft.engine import Admitted, CanvasCommitted, Finished
from redraft.generation.result import Generation


class ScriptedEngine(redraft.Engine):
    """An engine that writes `ids` in canvases of 8 tokens and ends for `finish`; `prompts` keeps what it was asked."""

    ids: tuple[int, ...] = ()
    finish = "stop"

    def __init__(self, model: redraft.Model) -> None:
        super().__init__(model)
        self.prompts: list[str] = []

    def events(self, request, events=None, *, at_once=False):
        events = asyncio.Queue() if events is None else events
        self.prompts.append(self.model.tokenizer.decode(request.prompt, skip_special=False))
        events.put_nowait(Admitted(request.id, 0.0, 0))
        for at in range(0, len(self.ids), 8):
            events.put_nowait(CanvasCommitted(request.id, self.ids[at : at + 8], 3))
        events.put_nowait(Finished(request.id, Generation((), self.finish, 1, (3,), 1.0, 0.0, 0.0, 0.0, ())))
        return events
