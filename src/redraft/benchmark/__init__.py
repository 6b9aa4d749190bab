"""How fast it is: denoising steps, the engine, load, peers, memory, and predictions from a model's shape."""
