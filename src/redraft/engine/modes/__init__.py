"""Decoding modes: what a sequence wants of the next forward, and what follows from the result."""
