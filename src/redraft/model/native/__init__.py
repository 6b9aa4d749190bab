"""Kernels of our own for what lies between a step's products, built once for this machine; torch can do without."""

from redraft.model.native.build import kernels_here
from redraft.model.native.kernels import Kernels

__all__ = ["Kernels", "kernels_here"]
