"""Batches in the server: its engine answers the requests of files."""
