"""Reads, checks, writes, quantizes and downloads checkpoints, and computes their sizes."""
