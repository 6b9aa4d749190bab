"""Token by token through the encoder pass: what the same weights do without a canvas.

The encoder is trained to predict the next token: decoding it greedily is the autoregressive reading of the one stack.
"""

from collections.abc import Generator, Sequence

import torch

from redraft.diffusion.settings import SamplerSettings
from redraft.generation.result import AnswerRecord, Generation, check_prompt, not_finite, result_of
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.model.config import ModelConfig
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout
from redraft.model.transformer import Transformer

GREEDY = ReadoutQuery(temperature=1.0, uniforms=None, soft_embedding=False)
"""Asks for the likeliest token of each row, and nothing else."""


def generate_autoregressive(
    model: Transformer, prompt: Sequence[int], settings: SamplerSettings, adapter: str | None = None
) -> Generation:
    """Runs `autoregressive_tokens` to its end."""
    return result_of(autoregressive_tokens(model, prompt, settings, adapter))


@torch.inference_mode()
def autoregressive_tokens(
    model: Transformer, prompt: Sequence[int], settings: SamplerSettings, adapter: str | None = None
) -> Generator[int, None, Generation]:
    """Yields the likeliest token, one encoder pass after the other; the generator's return value is the answer.

    It ends at an EOS, after `max_new_tokens` or at the end of the context. Of the settings only max_new_tokens counts.
    adapter: the name of one that the model holds.
    In the result a canvas is as many tokens as the model's is long, filled up with the last one, and a step is one
    encoder pass, the first of them the prompt's. Raises what `generate` raises, when first asked.
    """
    config, device = model.config, model.embed_tokens.weight.device
    check_prompt(prompt, 1, config.vocab_size, config.max_context)
    record, adapted = TokenRecord(len(prompt), settings, config), model.adapter(adapter)
    cache, pending, phase = KVCache(config), list(prompt), "prefill"
    while True:
        tokens = torch.tensor(pending, device=device)
        batch = FlatBatch.single(tokens, cache.length, Pass.ENCODER, adapter=adapted)
        result = model.run(batch, (cache,))
        (cache,) = result.caches
        readout = streamed_readout(model.head, result.hidden[-1:], GREEDY)
        if not readout.entropy.isfinite().all():
            raise not_finite(f"behind token {cache.length}")
        record.lap(phase)
        record.forwards += 1
        pending, phase = readout.argmax.tolist(), "commit"
        finish_reason = record.write(pending[0], readout.entropy.item())
        if finish_reason is not None:
            return record.generation(finish_reason)
        yield pending[0]


class TokenRecord(AnswerRecord):
    """The record of an answer that is written token by token. Nothing about it is random.

    forwards: those that it has taken so far, counted by whoever runs them.
    """

    def __init__(
        self,
        prompt_length: int,
        settings: SamplerSettings,
        config: ModelConfig,
        *,
        stop_ids: Sequence[int] | None = None,
    ) -> None:
        room = min(settings.max_new_tokens, config.max_context - prompt_length)
        stop_ids = config.eos_ids if stop_ids is None else stop_ids
        super().__init__(room=room, stop_ids=stop_ids, seed=0, max_context=config.max_context)
        self.forwards = 0
        self._length = config.canvas_length
        self._written: list[int] = []
        # How many forwards there had been when each token was written.
        self._forwards_at: list[int] = []

    @property
    def written(self) -> int:
        """The number of tokens so far, with one that has ended the answer."""
        return len(self._written)

    def write(self, token: int, entropy: float) -> str | None:
        """Adds a token, read out with so many nats.

        Returns why the answer ends there: "stop" at an EOS, "length" without room for it, or None.
        """
        self._written.append(token)
        self.entropies.append(entropy)
        self._forwards_at.append(self.forwards)
        if token in self.stop_ids:
            return "stop"
        return "length" if len(self._written) > self.room else None

    def generation(self, finish_reason: str) -> Generation:
        before = 0
        for start in range(0, len(self._written), self._length):
            block = self._written[start : start + self._length]
            forwards = self._forwards_at[start + len(block) - 1]
            self.add(block + block[-1:] * (self._length - len(block)), forwards - before, committed=0)
            before = forwards
        return super().generation(finish_reason)
