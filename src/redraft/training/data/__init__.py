"""Training data: examples, and rows of a user's file."""
