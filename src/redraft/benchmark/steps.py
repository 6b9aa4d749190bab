"""The time of a denoising step, stage by stage.

B canvases at once, C tokens each.
"""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from redraft.benchmark.timing import seconds_of
from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import CanvasState, Sampler
from redraft.diffusion.settings import SamplerSettings
from redraft.model.batch import FlatBatch, Pass, Segment
from redraft.model.cache import KVCache
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout
from redraft.model.transformer import Transformer

STAGES = ("attention", "dense", "experts", "readout", "sampler", "overhead")
"""attention: with its projections; dense: feed-forward and self-conditioning; experts: with the router; overhead: the
rest, which is embedding, norms, residuals and whatever runs between the parts."""


class Step:
    """A denoising step of B canvases behind `context` random cached tokens, to be repeated.

    length: of the canvases; None is the model's. Raises ValueError for a batch below 1 and a context that leaves no
    room for a canvas.
    """

    def __init__(
        self, model: Transformer, batch: int, context: int, *, length: int | None = None, seed: int = 0
    ) -> None:
        config = model.config
        length = length or config.canvas_length
        check_step(batch, context, length, config.max_context)
        self.model, self.batch, self.length, self.context = model, batch, length, context
        generator = torch.Generator().manual_seed(seed)

        def tokens(count: int) -> Tensor:
            return torch.randint(0, config.vocab_size, (count,), generator=generator)

        self.caches = tuple(KVCache(config) for _ in range(batch))
        if context:
            with torch.inference_mode():
                prompts = (FlatBatch.single(tokens(context), 0, Pass.ENCODER) for _ in range(batch))
                self.caches = tuple(model.run(prompt, (KVCache(config),)).caches[0] for prompt in prompts)
        self._positions = torch.arange(context, context + length).repeat(batch)
        self._canvas = tokens(batch * length)
        settings = SamplerSettings()
        counters = [Counter(seed, index=i, step=settings.steps) for i in range(batch)]
        self._sampler = Sampler(config.vocab_size)
        self.state = CanvasState.starting(self._canvas.view(batch, length), [settings] * batch, counters)
        # Self-conditioning from a first step, so that every timed step has it.
        state = self.run()
        self.state = dataclasses.replace(self.state, soft_embedding=state.soft_embedding)

    @torch.inference_mode()
    def run(self, clock: "Clock | None" = None) -> CanvasState:
        """Takes one step, always from the same state: the network, the readout, the sampler."""
        clock, state = clock or Clock(), self.state
        signal = None if state.soft_embedding is None else state.soft_embedding.flatten(0, 1)
        hidden = self._forward(Pass.DENOISER, signal)
        with clock.stage("sampler"):
            uniforms = self._sampler.uniforms(state)
        with clock.stage("readout"):
            read = streamed_readout(self.model.head, hidden, ReadoutQuery(state.temperatures[0], uniforms))
        with clock.stage("sampler"):
            return self._sampler.step(state, read)

    @torch.inference_mode()
    def commit(self) -> None:
        """Runs the encoder pass over the B canvases; the caches stay unchanged."""
        self._forward(Pass.ENCODER, None)

    def stages(self) -> dict[str, float]:
        """Runs one step; returns the seconds of each stage and of the whole ("step")."""
        clock = Clock()
        with clock.watching(self.model):
            total = seconds_of(lambda: self.run(clock))
        return clock.spent | {"overhead": total - sum(clock.spent.values()), "step": total}

    def _forward(self, kind: Pass, soft_embedding: Tensor | None) -> Tensor:
        n = self.length
        segments = tuple(Segment(slot, slot * n, n, self.context, kind) for slot in range(self.batch))
        flat = FlatBatch(self._canvas, self._positions, segments, soft_embedding)
        return self.model.run(flat, self.caches).hidden


def check_step(batch: int, context: int, canvas_length: int, max_context: int) -> None:
    """Raises ValueError for a batch below 1 and a context that leaves no room for a canvas."""
    if batch < 1:
        raise ValueError(f"batch is {batch}, must be at least 1")
    if not 0 <= context <= max_context - canvas_length:
        raise ValueError(
            f"context is {context}, must lie between 0 and {max_context - canvas_length}: "
            f"the model's context of {max_context} less a canvas of {canvas_length}"
        )


class Clock:
    """A clock of the seconds spent in each stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.spent[name] += time.perf_counter() - start

    @contextmanager
    def watching(self, model: Transformer) -> Iterator[None]:
        """Times the parts of a model's layers and its self-conditioning."""
        parts: list[tuple[Any, str]] = [(model.self_conditioning, "dense")]
        for layer in model.layers:
            parts += [(layer.self_attn, "attention"), (layer.mlp, "dense")]
            parts += [(layer.router, "experts"), (layer.experts, "experts")]
        hooks = [hook for module, name in parts for hook in self._hooks(module, name)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hooks(self, module: nn.Module, name: str) -> list[Any]:
        start = 0.0

        def before(*_: object) -> None:
            nonlocal start
            start = time.perf_counter()

        def after(*_: object) -> None:
            self.spent[name] += time.perf_counter() - start

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
