"""Text diffusion's own decisions: noise, temperature, acceptance, stopping, randomness, and the sampler.

Imports nothing but torch, and the settings not even that.
"""
