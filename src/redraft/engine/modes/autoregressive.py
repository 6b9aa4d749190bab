"""Decoding token by token: the causal reading of the one stack of weights, an encoder pass for each token."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from redraft.engine.events import CanvasCommitted, Event, Finished
from redraft.engine.request import Request
from redraft.engine.sequence import Chunk, DecodingOutcome, Phase, Sequence, WorkItem
from redraft.generation.autoregressive import GREEDY, TokenRecord
from redraft.generation.result import AnswerRecord, check_prompt, not_finite
from redraft.model.config import ModelConfig
from redraft.model.head import OutputHead
from redraft.model.readout.streamed import streamed_readout


class Autoregressive:
    """The decoding mode of `generation/autoregressive.py`: the likeliest token each time, until EOS or no more room."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._config, self._device = config, device

    def check(self, request: Request) -> None:
        check_prompt(request.prompt, 1, self._config.vocab_size, self._config.max_context)

    def canvas_length(self, request: Request) -> int:
        return 0

    def record(self, request: Request) -> AnswerRecord:
        return TokenRecord(len(request.prompt), request.settings, self._config)

    def max_cached(self, request: Request) -> int:
        # The first token comes from the row of the prompt's last.
        return len(request.prompt) - 1

    def work(self, chunk: Chunk) -> WorkItem:
        return WorkItem(chunk, chunk.sequence.pending[: chunk.encode], read_last=int(chunk.is_last))

    def read(self, items: list[WorkItem], head: OutputHead, hidden: Tensor) -> list[DecodingOutcome]:
        readout = streamed_readout(head, hidden, GREEDY)
        return [
            DecodingOutcome(token_ids=(token,), entropies=(entropy,))
            if math.isfinite(entropy)
            else DecodingOutcome(error=not_finite(f"behind token {item.sequence.cache.length + len(item.encode)}"))
            for item, token, entropy in zip(items, readout.argmax.tolist(), readout.entropy.tolist(), strict=True)
        ]

    def take(self, sequence: Sequence, outcome: DecodingOutcome) -> Iterator[Event]:
        record, (token,), (entropy,) = sequence.record, outcome.token_ids, outcome.entropies
        assert isinstance(record, TokenRecord)
        record.lap(sequence.phase.value)
        record.forwards += 1
        finish_reason = record.write(token, entropy)
        if finish_reason is not None:
            yield Finished(sequence.request.id, record.generation(finish_reason))
            return
        yield CanvasCommitted(sequence.request.id, (token,), steps=0)
        sequence.pending, sequence.phase = [token], Phase.COMMIT
