"""Kernels of our own for what lies between a step's products, built once for this machine; torch can do without."""

from redraft.model.native.build import load_kernels
from redraft.model.native.kernels import Kernels

__all__ = ["Kernels", "load_kernels"]
