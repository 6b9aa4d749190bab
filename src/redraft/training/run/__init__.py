"""A training run: its folder, log, report, and the session that trains in it."""
