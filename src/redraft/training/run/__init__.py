"""A run of training: its checkpoints, log and report."""
