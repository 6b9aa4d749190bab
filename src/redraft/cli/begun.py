"""When this process began, as near as we know: `redraft.cli` imports it first, before torch, which takes seconds."""

import time

BEGUN = time.perf_counter()
