"""The readable loop for one request, and the sampler settings everybody uses."""

from redraft.generation.loop import DenoisingStep, Generation, cut_canvas, denoise, denoising_steps, generate
from redraft.generation.settings import SamplerSettings

__all__ = ["DenoisingStep", "Generation", "SamplerSettings", "cut_canvas", "denoise", "denoising_steps", "generate"]
