"""Data of a training run: examples, and a user's rows."""
