"""Commands about a checkpoint itself: what it takes to run, and a smaller copy of it."""
