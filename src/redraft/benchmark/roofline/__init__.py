"""Predictions of speed: matrix products alone, and rooflines from a model's shape."""
