"""Kernels of our own for what lies between a step's products, built once for this machine; torch can do without."""
