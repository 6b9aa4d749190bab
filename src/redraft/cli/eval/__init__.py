"""`redraft eval`."""
