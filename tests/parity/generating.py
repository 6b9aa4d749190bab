"""Whole generations on both sides, fed the same random numbers, and how close their decisions were.

C canvas, V vocabulary. Our numbers are a function of (canvas, step, purpose); the reference draws its own in a fixed
order, so that the order of the calls says which number each should have been.
"""

from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    DiffusionGemmaGenerationConfig,
    EntropyBoundSampler,
    EntropyBoundSamplerConfig,
)

from redraft.diffusion.randomness import Counter, Purpose
from redraft.diffusion.settings import SamplerSettings
from redraft.generation.loop import denoising_steps
from redraft.generation.result import DenoisingStep, Generation
from redraft.model.readout.plain import inverse_cdf
from tests.parity.reference import Pair, router_margins

NO_TOKEN = -1
"""The reference's padding, and its EOS where there is none: no answer has this token, so none is taken for it."""


@dataclass
class Margins:
    """The closest call of each kind of decision; below `LIMITS` rounding may decide it."""

    closest: dict[str, float] = field(default_factory=dict)

    LIMITS = {"sample": 2e-5, "acceptance": 2e-5, "argmax": 1e-4, "stop": 2e-5, "router": 1e-5}  # noqa: RUF012

    def note(self, decision: str, margins: Tensor) -> None:
        if margins.numel():
            self.closest[decision] = min(self.closest.get(decision, 1.0), float(margins.min()))

    def too_close(self) -> dict[str, float]:
        return {decision: margin for decision, margin in self.closest.items() if margin < self.LIMITS[decision]}


@dataclass(frozen=True)
class ReferenceStep:
    """One denoising step as the reference took it: draft, renoised int64 [C], accepted bool [C], entropy [C]."""

    draft: Tensor
    renoised: Tensor
    accepted: Tensor
    entropy: Tensor


@dataclass
class ReferenceRun:
    """What the reference wrote: steps of each canvas, and its `generate`'s output."""

    canvases: list[list[ReferenceStep]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    tokens_per_forward: float = 0.0
    margins: Margins = field(default_factory=Margins)


class Script:
    """Stands in for torch's random functions and for the sampler's methods while the reference runs; records.

    Of each canvas the reference draws the noise it starts from; of each step a sample, and then the noise that
    renoises it, also in the last step, whose canvas nobody reads.
    """

    def __init__(self, settings: SamplerSettings, vocab_size: int) -> None:
        assert settings.seed is not None
        self.settings, self.vocab_size, self.run = settings, vocab_size, ReferenceRun()
        self.canvas, self.step = -1, 0
        self.renoises = False
        self.uniform = torch.empty(0)
        self.drawn: tuple[Tensor, Tensor, Tensor] | None = None
        self.seen: tuple[Tensor, Tensor] | None = None

    def counter(self) -> Counter:
        assert self.settings.seed is not None
        return Counter(self.settings.seed, self.settings.index, self.canvas, self.step)

    def randint(self, *, low: int, high: int, size: tuple[int, int], device: torch.device) -> Tensor:
        assert (low, high, size[0]) == (0, self.vocab_size, 1)
        if self.renoises:
            self.renoises = False
            return self.counter().random_tokens(size[1], high, Purpose.RENOISE, device=device)[None]
        self.canvas, self.step = self.canvas + 1, 0
        noise = self.counter().random_tokens(size[1], high, Purpose.INITIAL_CANVAS, device=device)[None]
        self.step = self.settings.steps + 1
        self.run.canvases.append([])
        return noise

    def multinomial(self, probs: Tensor, num_samples: int) -> Tensor:
        assert num_samples == 1 and not self.renoises
        self.step -= 1
        self.renoises = True
        uniform = self.counter().uniforms(probs.shape[0], Purpose.SAMPLE)
        if self.settings.temperature == 0:
            sample, margin = probs.argmax(dim=-1), torch.ones(probs.shape[0])
        else:
            sample = inverse_cdf(probs, uniform)
            cumulated = torch.nn.functional.pad(probs.double().cumsum(dim=-1), (1, 0))
            margin = (cumulated - uniform[:, None] * cumulated[:, -1:]).abs().amin(dim=-1)
        self.drawn = (sample, margin, probs)
        return sample[:, None]

    def accept_canvas(self, sampler: EntropyBoundSampler, original: Any, args: tuple[Any, ...]) -> Tensor:
        accepted_canvas: Tensor = original(sampler, *args)
        logits, accepted = args[2][0], sampler.accepted_token_mask[0]
        assert self.drawn is not None
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        self.seen = (accepted, entropy)

        note = self.run.margins.note
        note("sample", self.drawn[1][accepted])
        best = logits.topk(2, dim=-1).values
        note("argmax", best[:, 0] - best[:, 1])
        # What the sum of each position's surer ones lacks to the bound, and the gap between accepted and not.
        ascending = entropy.sort().values
        note("acceptance", (ascending.cumsum(0) - ascending - self.settings.flat()["entropy_bound"])[1:].abs())
        count = int(accepted.sum())
        note("acceptance", ascending[count : count + 1] - ascending[count - 1 : count])
        note("stop", (entropy.mean() - self.settings.flat()["confidence_threshold"]).abs())
        return accepted_canvas

    def renoise_canvas(self, sampler: EntropyBoundSampler, original: Any, args: tuple[Any, ...]) -> Tensor:
        renoised: Tensor = original(sampler, *args)
        assert self.seen is not None
        accepted, entropy = self.seen
        # The draft is not known yet; the streamer hands it over at the step's end.
        self.run.canvases[-1].append(ReferenceStep(torch.empty(0), renoised[0].clone(), accepted.clone(), entropy))
        return renoised

    # The streamer's side.
    def put(self, value: Tensor) -> None: ...

    def end(self) -> None: ...

    def put_draft(self, value: Tensor) -> None:
        step = self.run.canvases[-1].pop()
        draft = value[0].clone()
        self.run.canvases[-1].append(ReferenceStep(draft, step.renoised, step.accepted, step.entropy))


def reference_generate(pair: Pair, prompt: list[int], settings: SamplerSettings) -> ReferenceRun:
    """transformers' own `generate`, with our numbers in the place of torch's."""
    script = Script(settings, pair.config.vocab_size)
    flat, factor = settings.flat(), settings.temperature or 1.0
    config = DiffusionGemmaGenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        max_denoising_steps=settings.steps,
        sampler_config=EntropyBoundSamplerConfig(entropy_bound=flat["entropy_bound"]),
        t_min=flat["t_min"] * factor,
        t_max=flat["t_max"] * factor,
        stability_threshold=flat["stability_threshold"],
        confidence_threshold=flat["confidence_threshold"],
        # None would be filled in from elsewhere.
        eos_token_id=list(pair.config.eos_ids) or [NO_TOKEN],
        pad_token_id=NO_TOKEN,
    )

    def wrapped(name: str) -> Any:
        original, around = getattr(EntropyBoundSampler, name), getattr(script, name)
        return patch.object(EntropyBoundSampler, name, lambda sampler, *args: around(sampler, original, args))

    with (
        patch.object(torch, "randint", script.randint),
        patch.object(torch, "multinomial", script.multinomial),
        wrapped("accept_canvas"),
        wrapped("renoise_canvas"),
        # Of use to CUDA graphs only; it would import torch's compiler, which takes seconds and warns.
        patch.object(torch.compiler, "cudagraph_mark_step_begin", lambda: None),
    ):
        out = pair.reference.generate(torch.tensor([prompt]), generation_config=config, streamer=script)
    script.run.tokens = out.sequences[0, len(prompt) :].tolist()
    script.run.tokens_per_forward = float(out.tokens_per_forward)
    return script.run


def our_generate(
    pair: Pair, prompt: list[int], settings: SamplerSettings
) -> tuple[list[DenoisingStep], Generation, float]:
    """Steps and answer of ours, and the closest call of its routers."""
    taken: list[DenoisingStep] = []
    steps = denoising_steps(pair.model, prompt, settings)
    with router_margins(pair.model) as margins:
        while True:
            try:
                taken.append(next(steps))
            except StopIteration as end:
                return taken, end.value, min(margins, default=1.0)
