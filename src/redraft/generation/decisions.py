"""Decisions read off a canvas: how probable each of some texts is as the whole answer, without writing one.

    prompts ──one encoder forward──▶ caches ──one forward a pass──▶ canvases ──last pass──▶ log-mass of each label

At each position a canvas gives every token a probability, independently of the others. That of a label is the sum over
all ways to cut its bytes into tokens, each way followed by ends to the end of the canvas.

C canvas length, L labels, M bytes of a label.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from redraft.constraints.vocabulary import Vocabulary
from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import CanvasState, Sampler
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.generation.result import check_prompt, not_finite
from redraft.model.batch import FlatBatch, Pass, SegmentInput
from redraft.model.cache import KVCache
from redraft.model.readout.classes import ClassMap, RowClasses
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout
from redraft.model.transformer import Transformer

Floats = NDArray[np.float64]
NO_CLASS = -1


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Texts that an answer may be, and how tokens write them.

    cuts: of each label, by the byte that it begins at, the tokens that may stand there, as (index of `tokens`, bytes).
    sizes: the bytes of each label. tokens: all that occur in one; end_ids: those that end an answer.
    """

    cuts: tuple[tuple[tuple[tuple[int, int], ...], ...], ...]
    sizes: tuple[int, ...]
    tokens: tuple[int, ...]
    end_ids: tuple[int, ...]
    vocab_size: int

    @classmethod
    def of(cls, labels: Sequence[str], vocabulary: Vocabulary) -> "LabelSet":
        """Raises ValueError for labels that are not different, or that the tokens cannot write."""
        if len(set(labels)) != len(labels):
            raise ValueError("two labels are the same text: give each once")
        texts = [label.encode() for label in labels]
        wanted = {text[at:end] for text in texts for at in range(len(text)) for end in range(at + 1, len(text) + 1)}
        ids: dict[bytes, list[int]] = {}
        for token, text in enumerate(vocabulary.token_bytes):
            if text in wanted:
                ids.setdefault(text, []).append(token)
        tokens = [token for found in ids.values() for token in found]
        index = {token: at for at, token in enumerate(tokens)}
        longest = max(map(len, ids), default=0)
        cuts = []
        for text in texts:
            starts = []
            for at in range(len(text)):
                pieces = (text[at:end] for end in range(at + 1, min(len(text), at + longest) + 1))
                starts.append(tuple((index[token], len(piece)) for piece in pieces for token in ids.get(piece, ())))
            cuts.append(tuple(starts))
        return cls(tuple(cuts), tuple(map(len, texts)), tuple(tokens), vocabulary.end_ids, vocabulary.size)

    @property
    def class_of_token(self) -> torch.Tensor:
        """int64 [V]: each token of a label by itself, those that end an answer together, and no class for others."""
        classes = torch.full((self.vocab_size,), NO_CLASS)
        classes[list(self.tokens)] = torch.arange(len(self.tokens))
        classes[list(self.end_ids)] = len(self.tokens)
        return classes

    def log_masses(self, log_probs: Floats) -> Floats:
        """Returns the log-probability [L] that a canvas is each label and nothing behind it.

        log_probs [C, T+1]: of each token at each position, and in the last column of an end.
        """
        length = len(log_probs)
        # The sum over the ends from each position on.
        ends = np.append(np.cumsum(log_probs[::-1, -1])[::-1], 0.0)
        found = np.full(len(self.cuts), -np.inf)
        for number, (starts, size) in enumerate(zip(self.cuts, self.sizes, strict=True)):
            # reached[at]: of the tokens before a position, that they write the label's first `at` bytes.
            reached = np.full(size + 1, -np.inf)
            reached[0] = 0.0
            for position in range(min(length, size) + 1):
                found[number] = np.logaddexp(found[number], reached[size] + ends[position])
                if position == length:
                    break
                following = np.full(size + 1, -np.inf)
                for at in np.flatnonzero(reached[:size] > -np.inf):
                    for token, count in starts[at]:
                        log_prob = reached[at] + log_probs[position, token]
                        following[at + count] = np.logaddexp(following[at + count], log_prob)
                reached = following
        return found


@torch.inference_mode()
def label_log_masses(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    labels: Sequence[LabelSet],
    settings: SamplerSettings,
    *,
    passes: int = 1,
    draws: int = 1,
    starts: Sequence[CanvasStart | None] = (),
    temperature: float = 1.0,
) -> list[Floats]:
    """Returns, of each prompt, the log-probabilities [draws, L] of its labels after so many denoising passes.

    All prompts, and all canvases of a pass, are in one forward. Each draw begins as noise of its own, the first as the
    first answer of that seed. temperature: under which the labels are read; that of the sampler decides what the passes
    before it keep. starts: what the canvas of each prompt begins as. Raises ValueError for prompts that do not fit, and
    logits that are not finite.
    """
    config, device = model.config, model.embed_tokens.weight.device
    length = settings.canvas_length or config.canvas_length
    for prompt, start in zip(prompts, starts or [None] * len(prompts), strict=True):
        check_prompt(prompt, length, config.vocab_size, config.max_context)
        if start is not None:
            start.check(length, config.vocab_size, length)
    parts = [
        SegmentInput(torch.tensor(prompt, device=device), 0, Pass.ENCODER, slot=slot)
        for slot, prompt in enumerate(prompts)
    ]
    caches = model.run(FlatBatch.of(parts), [KVCache(config) for _ in prompts]).caches
    settings = dataclasses.replace(settings, steps=passes)
    sampler = Sampler(config.vocab_size)
    states = [
        sampler.init(
            [settings], [Counter(settings.seed or 0, draw)], length, device=device,
            starts=[dataclasses.replace(start, strength=None) if start else None],
        )
        for start in starts or [None] * len(prompts)
        for draw in range(draws)
    ]  # fmt: skip
    held = [caches[slot] for slot in range(len(prompts)) for _ in range(draws)]
    for number in range(passes):
        hidden = _denoise(model, states, held)
        if number < passes - 1:
            by_row = torch.tensor(states[0].temperatures, dtype=torch.float64, device=device).expand(len(hidden))
            readout = streamed_readout(model.head, hidden, ReadoutQuery(by_row, sampler.uniforms(*states)))
            stepped = sampler.step_each(states, readout)
            # A canvas that has come to rest goes on: the others need the passes.
            states = [dataclasses.replace(state, active=torch.ones_like(state.active)) for state in stepped]
    rows = length * draws
    asked = [
        RowClasses(slot * rows, (slot + 1) * rows, ClassMap(one.class_of_token, len(one.tokens) + 1))
        for slot, one in enumerate(labels)
    ]
    query = ReadoutQuery(temperature, None, soft_embedding=False, classes=tuple(asked))
    readout = streamed_readout(model.head, hidden, query)
    if not readout.entropy.isfinite().all():
        raise not_finite("in the last pass")
    found = []
    for slot, (one, classes) in enumerate(zip(labels, readout.classes, strict=True)):
        read = classes.log_mass.numpy()
        pinned = states[slot * draws].pinned
        masses = [_pinned(log_probs, states[slot * draws], one) if pinned is not None else log_probs
                  for log_probs in read.reshape(draws, length, -1)]  # fmt: skip
        found.append(np.stack([one.log_masses(log_probs) for log_probs in masses]))
    return found


def _denoise(model: Transformer, states: Sequence[CanvasState], caches: Sequence[KVCache]) -> torch.Tensor:
    """Returns the hidden states of all canvases, one behind the other, each behind what its cache holds."""
    parts = [
        SegmentInput(
            state.tokens[0], cache.length, Pass.DENOISER,
            None if state.soft_embedding is None else state.soft_embedding[0], slot,
        )
        for slot, (state, cache) in enumerate(zip(states, caches, strict=True))
    ]  # fmt: skip
    return model.run(FlatBatch.of(parts), caches).hidden


def _pinned(log_probs: Floats, state: CanvasState, labels: LabelSet) -> Floats:
    """Returns the log-probabilities with those of pinned positions certain."""
    assert state.pinned is not None
    classes = labels.class_of_token
    found = log_probs.copy()
    for position in torch.nonzero(state.pinned[0])[:, 0].tolist():
        found[position] = -np.inf
        if (column := int(classes[state.tokens[0, position]])) != NO_CLASS:
            found[position, column] = 0.0
    return found
