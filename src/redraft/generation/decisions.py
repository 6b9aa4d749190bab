"""Decisions read off a canvas: how probable each of some texts is as the whole answer, without writing one.

    prompts ──one encoder forward──▶ caches ──one forward a pass──▶ canvases ──last pass──▶ log-mass of each label

What a canvas says of a label is in `constraints/labels.py`. C canvas length, L labels.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from redraft.constraints.labels import NO_CLASS, LabelSet
from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import CanvasState, Sampler
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.generation.constrained import ConstrainedCanvas
from redraft.generation.result import check_prompt, not_finite
from redraft.model.batch import FlatBatch, Pass, SegmentInput
from redraft.model.cache import KVCache
from redraft.model.head import OutputHead
from redraft.model.linear.low_rank import AdapterMatrices
from redraft.model.readout.classes import ClassMap, RowClasses
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout
from redraft.model.transformer import Transformer

Floats = NDArray[np.float64]


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
    adapter: str | None = None,
) -> list[Floats]:
    """Returns, of each prompt, the log-probabilities [draws, L] of its labels after so many denoising passes.

    All prompts, and all canvases of a pass, are in one forward. Each draw begins as noise of its own, the first as the
    first answer of that seed. temperature: under which the labels are read; that of the sampler decides what the passes
    before it keep. starts: what the canvas of each prompt begins as. adapter: the name of one that the model holds.
    Raises ValueError for prompts that do not fit, and logits that are not finite.
    """
    config, device, adapted = model.config, model.embed_tokens.weight.device, model.adapter(adapter)
    length = settings.canvas_length or config.canvas_length
    for prompt, start in zip(prompts, starts or [None] * len(prompts), strict=True):
        check_prompt(prompt, length, config.vocab_size, config.max_context)
        if start is not None:
            start.check(length, config.vocab_size, length)
    parts = [
        SegmentInput(torch.tensor(prompt, device=device), 0, Pass.ENCODER, slot=slot, adapter=adapted)
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
        hidden = _denoise(model, states, held, adapted)
        if number < passes - 1:
            by_row = torch.tensor(states[0].temperatures, dtype=torch.float64, device=device).expand(len(hidden))
            readout = streamed_readout(model.head, hidden, ReadoutQuery(by_row, sampler.uniforms(*states)))
            stepped = sampler.step_each(states, readout)
            # A canvas that has come to rest goes on: the others need the passes.
            states = [dataclasses.replace(state, active=torch.ones_like(state.active)) for state in stepped]
    drawn = [one for one in labels for _ in range(draws)]
    found = read_labels(model.head, hidden, states, drawn, temperature=temperature)
    return [np.stack(found[begin : begin + draws]) for begin in range(0, len(found), draws)]


def read_labels(
    head: OutputHead,
    hidden: torch.Tensor,
    states: Sequence[CanvasState],
    labels: Sequence[LabelSet],
    *,
    temperature: float = 1.0,
    limits: Sequence[int] | None = None,
) -> list[Floats]:
    """Returns the log-probabilities [L] of labels on each of some canvases, whose rows stand one behind the other.

    limits: of each canvas, the position from which on nothing but an end can stand. Raises ValueError for logits that
    are not finite.
    """
    maps = {id(one): ClassMap(torch.from_numpy(one.class_of_token), len(one.tokens) + 1) for one in labels}
    asked, end = [], 0
    for state, one in zip(states, labels, strict=True):
        asked.append(RowClasses(end, end + state.length, maps[id(one)]))
        end += state.length
    query = ReadoutQuery(temperature, None, soft_embedding=False, classes=tuple(asked))
    readout = streamed_readout(head, hidden, query)
    if not readout.entropy.isfinite().all():
        raise not_finite("in the last pass")
    found = []
    for at, (state, one, classes) in enumerate(zip(states, labels, readout.classes, strict=True)):
        read = classes.log_mass.numpy()
        log_probs = read if state.pinned is None else _pinned(read, state, one)
        if limits is not None:
            log_probs = log_probs.copy()
            log_probs[limits[at] :, :-1] = -np.inf
        found.append(one.log_masses(log_probs))
    return found


def choice_probabilities(
    head: OutputHead, hidden: torch.Tensor, state: CanvasState, held: ConstrainedCanvas | None
) -> dict[str, float] | None:
    """Returns how probable each text of a choice is on the canvas that its answer ends in, read off its last step.

    None without a choice, where not all of its texts fit into the one canvas, and where none has a probability.
    """
    labels = None if held is None else held.automaton.labels
    if held is None or labels is None or held.state != held.automaton.start:
        return None
    if any(state.length < count <= held.limit for count in labels.min_tokens):
        return None
    (masses,) = read_labels(head, hidden, [state], [labels], limits=[held.limit])
    together = np.logaddexp.reduce(masses)
    if not np.isfinite(together):
        return None
    return dict(zip(labels.texts, np.exp(masses - together).tolist(), strict=True))


def _denoise(
    model: Transformer, states: Sequence[CanvasState], caches: Sequence[KVCache], adapter: AdapterMatrices | None
) -> torch.Tensor:
    """Returns the hidden states of all canvases, one behind the other, each behind what its cache holds."""
    parts = [
        SegmentInput(
            state.tokens[0], cache.length, Pass.DENOISER,
            None if state.soft_embedding is None else state.soft_embedding[0], slot, adapter,
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
