"""Constraints: languages that an answer belongs to, and what they allow token by token; numpy only, no model."""
