"""JSON Schema as a language: what is accepted is kept exactly or narrowed, what cannot be kept is refused."""
