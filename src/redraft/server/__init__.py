"""HTTP: OpenAI's API with what a canvas adds to it, and a page on which the canvas can be watched."""
