"""The command line: thin commands that wire the rooms together. Imported by nobody."""

from redraft.cli.main import main

__all__ = ["main"]
