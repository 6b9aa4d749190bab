"""The readable loop for one request, the sampler settings everybody uses, and decoding token by token beside them."""

from redraft.generation.autoregression import autoregressive_tokens, generate_autoregressive
from redraft.generation.loop import DenoisingStep, Generation, cut_canvas, denoise, denoising_steps, generate
from redraft.generation.settings import SamplerSettings

__all__ = [
    "DenoisingStep",
    "Generation",
    "SamplerSettings",
    "autoregressive_tokens",
    "cut_canvas",
    "denoise",
    "denoising_steps",
    "generate",
    "generate_autoregressive",
]
