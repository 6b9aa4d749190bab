"""Small things that every room needs: files that are whole or not there, JSON, signals."""
