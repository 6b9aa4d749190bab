"""Clients of the OpenAI protocol."""
