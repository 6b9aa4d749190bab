"""Matrices of weights in the precisions there are, and products with them."""
