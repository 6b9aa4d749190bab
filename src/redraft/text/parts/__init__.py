"""Texts in parts: the items and the windows of a text, and one answer from those to each."""
