"""Where rows are answered. This machine's engine is one too: server/batches/executor.py."""
