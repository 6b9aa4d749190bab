"""Text diffusion's own decisions: noise, temperature, acceptance, stopping, randomness. Imports nothing but torch."""

from redraft.diffusion.acceptance import Acceptance, EntropyBound, LinearQuota
from redraft.diffusion.noise import corrupt, initial_canvas, renoise
from redraft.diffusion.randomness import Counter, Purpose, uniforms_of_many
from redraft.diffusion.schedule import LinearTemperature
from redraft.diffusion.stopping import EveryPositionConfident, StableAndConfident, Stopping

__all__ = [
    "Acceptance",
    "Counter",
    "EntropyBound",
    "EveryPositionConfident",
    "LinearQuota",
    "LinearTemperature",
    "Purpose",
    "StableAndConfident",
    "Stopping",
    "corrupt",
    "initial_canvas",
    "renoise",
    "uniforms_of_many",
]
