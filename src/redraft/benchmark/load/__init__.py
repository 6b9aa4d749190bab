"""Load tests of the engine and of servers."""
