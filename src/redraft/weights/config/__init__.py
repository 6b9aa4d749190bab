"""config.json of a checkpoint."""
