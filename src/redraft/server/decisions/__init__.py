"""Decisions through the API."""
