"""The readable loop for one request, and decoding token by token beside it."""

from redraft.generation.autoregressive import autoregressive_tokens, generate_autoregressive
from redraft.generation.loop import denoise, denoising_steps, generate
from redraft.generation.result import DenoisingStep, Generation, check_prompt
from redraft.utils.canvas import cut_canvas

__all__ = [
    "DenoisingStep",
    "Generation",
    "autoregressive_tokens",
    "check_prompt",
    "cut_canvas",
    "denoise",
    "denoising_steps",
    "generate",
    "generate_autoregressive",
]
