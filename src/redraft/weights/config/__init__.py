"""The config.json of a checkpoint."""
