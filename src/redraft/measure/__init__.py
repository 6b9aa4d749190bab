"""Measuring: evaluation tasks and their scores. One JSON object per result."""
