"""Token by token through the encoder pass: what the same weights do without a canvas.

The encoder is trained to predict the next token: decoding it is the autoregressive reading of the one stack.
"""

import secrets
from collections.abc import Generator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from redraft.constraints.tokens import TokenAutomaton
from redraft.diffusion.randomness import Counter, Purpose, uniforms_of_many
from redraft.diffusion.settings import MAX_SEED, SamplerSettings
from redraft.generation.constrained import check_constraint
from redraft.generation.result import (
    AnswerRecord,
    ConstraintReport,
    Generation,
    check_prompt,
    not_finite,
    to_its_end,
)
from redraft.generation.token_constraint import TokenConstraint, allowed_tokens
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.model.config import ModelConfig
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout
from redraft.model.transformer import Transformer


@torch.inference_mode()
def autoregressive_tokens(
    model: Transformer,
    prompt: Sequence[int],
    settings: SamplerSettings,
    constraint: TokenAutomaton | None = None,
    adapter: str | None = None,
) -> Generator[int, None, Generation]:
    """Yields one token after the other, by one encoder pass each; the generator's return value is the answer.

    A token is the likeliest at temperature 0, else drawn from the softmax of the logits over the temperature, by
    inverse CDF: with the number that `TokenRecord.uniforms` has for its place in the answer. constraint: the language
    that the answer is to be of; tokens that cannot stand in a place are left out before that. adapter: the name of one
    that the model holds.

    It ends at an EOS, after `max_new_tokens` or at the end of the context. Of the settings only max_new_tokens,
    temperature, seed and index count. In the result a canvas is as many tokens as the model's is long, filled up with
    the last one, and a step is one encoder pass, the first of them the prompt's. Raises what `generate` raises, when
    first asked.
    """
    config, device = model.config, model.embed_tokens.weight.device
    check_prompt(prompt, 1, config.vocab_size, config.max_context)
    record = TokenRecord(prompt, settings, config, constraint=constraint)
    adapted = model.adapter(adapter)
    cache, pending, phase = KVCache(config), list(prompt), "prefill"
    while True:
        tokens = torch.tensor(pending, device=device)
        batch = FlatBatch.single(tokens, cache.length, Pass.ENCODER, adapter=adapted)
        result = model.run(batch, (cache,))
        (cache,) = result.caches
        query = ReadoutQuery(
            settings.temperature or 1.0,
            record.uniforms(record.written, 1).to(device) if settings.temperature else None,
            allowed=allowed_tokens([(record.held, (), 1)], device),
            soft_embedding=False,
        )
        readout = streamed_readout(model.head, result.hidden[-1:], query)
        if not readout.entropy.isfinite().all():
            raise not_finite(f"behind token {cache.length}")
        record.lap(phase)
        record.count(is_step=False, has_draft=False, has_tokens=True)
        pending, phase = readout.sample.tolist(), "commit"
        finish_reason = record.write(pending[0], readout.entropy.item())
        if finish_reason == "stop" and pending[0] not in config.eos_ids:
            yield pending[0]
        if finish_reason is not None:
            return record.generation(finish_reason)
        yield pending[0]


generate_autoregressive = to_its_end(autoregressive_tokens)
"""Runs `autoregressive_tokens` to its end."""


class TokenRecord(AnswerRecord):
    """The record of an answer that is written causally.

    held: the constraint that it is under. forwards: those that it has taken so far, counted by whoever runs them.
    Raises ValueError for a constraint that no answer can meet.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        settings: SamplerSettings,
        config: ModelConfig,
        *,
        stop_ids: Sequence[int] | None = None,
        constraint: TokenAutomaton | None = None,
    ) -> None:
        seed = settings.seed
        if seed is None:
            seed = secrets.randbelow(MAX_SEED) if settings.temperature else 0
        super().__init__(
            room=min(settings.max_new_tokens, config.max_context - len(prompt)),
            stop_ids=config.eos_ids if stop_ids is None else stop_ids,
            seed=seed,
            max_context=config.max_context,
            vocab_size=config.vocab_size,
        )
        self.held: TokenConstraint | None = None
        if constraint is not None:
            check_constraint(
                constraint, vocab_size=config.vocab_size, stop_ids=self.stop_ids, prompt_length=len(prompt),
                canvas_length=1, max_new_tokens=self.room, max_context=config.max_context,
            )  # fmt: skip
            self.held = TokenConstraint(constraint, self.room)
        self.forwards = 0
        self._place = Counter(seed, settings.index)
        self._length = config.canvas_length
        self._written: list[int] = []
        # How many forwards there had been when each token was written.
        self._forwards_at: list[int] = []

    def count(self, *, is_step: bool, has_draft: bool, has_tokens: bool) -> None:
        """Counts a forward: whether it denoised a canvas, and whether it wrote tokens, from a draft or without."""
        self.forwards += 1

    def take_steps(self) -> int:
        """Returns the denoising steps since it was last asked."""
        return 0

    def uniforms(self, start: int, count: int) -> Tensor:
        """Returns the random numbers, float64 [count], of the answer's tokens from `start` on: each place has its own.

        So a token depends on its place and on what the model says there, and not on how many forwards it took.
        """
        return uniforms_of_many([self._place], [count], Purpose.CAUSAL, starts=[start])

    @property
    def written(self) -> int:
        """The number of tokens so far, with one that has ended the answer."""
        return len(self._written)

    @property
    def last(self) -> int:
        """The last token so far."""
        return self._written[-1]

    def write(self, token: int, entropy: float) -> str | None:
        """Adds a token, read out with so many nats; returns why the answer ends there, or None.

        "stop" at an EOS, and where the constraint allows nothing but that; "length" for a token beyond the room.
        """
        self._written.append(token)
        self.entropies.append(entropy)
        self._forwards_at.append(self.forwards)
        if token in self.stop_ids:
            return "stop"
        if self.held is not None:
            self.held.take(token)
            return "stop" if self.held.is_complete else None
        return "length" if len(self._written) > self.room else None

    def generation(self, finish_reason: str) -> Generation:
        before = 0
        for start in range(0, len(self._written), self._length):
            block = self._written[start : start + self._length]
            forwards = self._forwards_at[start + len(block) - 1]
            # Where nothing but the end can follow, no pass has written it.
            filling = block[-1] if self.held is None else self.stop_ids[0]
            self.add(block + [filling] * (self._length - len(block)), forwards - before, committed=0)
            before = forwards
        generation = super().generation(finish_reason)
        if self.held is None:
            return generation
        return replace(generation, constraint=ConstraintReport((), 0, self.held.automaton.num_states))
