"""The readable loop for one request, the sampler settings everybody uses, and decoding token by token beside them."""

from redraft.diffusion.settings import SamplerSettings
from redraft.generation.autoregressive import autoregressive_tokens, generate_autoregressive
from redraft.generation.loop import DenoisingStep, Generation, denoise, denoising_steps, generate
from redraft.utils.canvas import cut_canvas

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
