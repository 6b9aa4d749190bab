"""The command line: thin commands that wire the rooms together. Imported by nobody."""

import time

BEGUN = time.perf_counter()
"""When this process began, as near as we know: before torch is imported, which takes seconds."""

from redraft.cli.main import main  # noqa: E402

__all__ = ["main"]
