"""Prompts: conversations, the forms of requests that a model was trained on, and what one asks for."""
