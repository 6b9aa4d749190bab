"""`redraft bench`."""
