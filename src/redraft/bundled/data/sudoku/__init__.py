"""Sudoku: puzzles with one solution, their tokens, and examples of them for training."""
