"""Scoring a prompt: what the causal reading of the one stack of weights says of each of its tokens.

N rows, A tokens asked for of each row.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from redraft.engine.events import CanvasCommitted, Event, Finished, TokensScored
from redraft.engine.request import Request
from redraft.engine.sequence import Chunk, DecodingOutcome, Sequence, WorkItem
from redraft.generation.autoregressive import TokenRecord
from redraft.generation.result import AnswerRecord, check_prompt, not_finite
from redraft.model.config import ModelConfig
from redraft.model.head import OutputHead
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout


class Scoring:
    """The decoding mode that reads out every row of the prompt, and ends with the likeliest token behind it."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._config, self._device = config, device

    def check(self, request: Request) -> None:
        check_prompt(request.prompt, 0, self._config.vocab_size, self._config.max_context)

    def canvas_length(self, request: Request) -> int:
        return 0

    def record(self, request: Request) -> AnswerRecord:
        return TokenRecord(request.prompt, request.settings.replace(max_new_tokens=1), self._config)

    def max_cached(self, request: Request) -> int:
        return 0

    def work(self, chunk: Chunk) -> WorkItem:
        return WorkItem(chunk, chunk.sequence.pending[: chunk.encode], read_last=chunk.encode)

    def read(self, items: list[WorkItem], head: OutputHead, hidden: Tensor) -> list[DecodingOutcome]:
        behind = [_tokens_behind(item) for item in items]
        # Behind a prompt's last row there is no token yet: whichever is asked for there, the likeliest is taken.
        asked = [token if token is not None else 0 for tokens in behind for token in tokens]
        ids = torch.tensor(asked, device=self._device)[:, None]
        count = max(1, *(item.sequence.request.top for item in items))
        readout = streamed_readout(
            head, hidden, ReadoutQuery(1.0, None, token_ids=ids, top=count, soft_embedding=False)
        )
        assert readout.log_probs is not None
        assert readout.top is not None
        scores = readout.top.as_listed(ids, readout.log_probs)[:, 0].tolist()
        is_finite = readout.entropy.isfinite().tolist()
        outcomes, end = [], 0
        for item, tokens in zip(items, behind, strict=True):
            rows = slice(end, end + len(tokens))
            end = rows.stop
            if not all(is_finite[rows]):
                at = item.sequence.cache.length + is_finite[rows].index(False)
                outcomes.append(DecodingOutcome(error=not_finite(f"behind token {at}")))
                continue
            log_probs = scores[rows]
            if tokens[-1] is None:
                tokens[-1], log_probs[-1] = int(readout.argmax[end - 1]), float(readout.top.log_probs[end - 1, 0])
            top = readout.top[rows, : item.sequence.request.top]
            outcomes.append(DecodingOutcome(token_ids=tuple(tokens), log_probs=tuple(log_probs), top=top))  # type: ignore[arg-type]
        return outcomes

    def take(self, sequence: Sequence, outcome: DecodingOutcome) -> Iterator[Event]:
        record, id = sequence.record, sequence.request.id
        assert isinstance(record, TokenRecord)
        assert outcome.top is not None
        record.lap(sequence.phase.value)
        yield TokensScored(id, outcome.token_ids, outcome.log_probs, outcome.top)
        if sequence.pending:
            return
        record.forwards += 1
        token = outcome.token_ids[-1]
        # Nobody asks how sure it is of what comes behind the prompt.
        finish_reason = record.write(token, 0.0)
        if finish_reason is None:
            yield CanvasCommitted(id, (token,), steps=0)
        yield Finished(id, record.generation(finish_reason or "length"))


def _tokens_behind(item: WorkItem) -> list[int | None]:
    """Returns the prompt's token behind each of those that are read; None behind the last of all."""
    start, prompt = item.sequence.cache.length, item.sequence.request.prompt
    return [*prompt[start + 1 : start + len(item.encode) + 1], *([None] if item.chunk.is_last else [])]
