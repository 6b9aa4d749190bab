"""OpenAI's API, an endpoint a file, with what a canvas adds to it."""
