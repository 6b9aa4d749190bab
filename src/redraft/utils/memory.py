"""Free memory is returned to the system periodically.

Kept prefixes lie between the large tensors of forwards, so glibc's heap has holes that it neither returns nor reuses as
well as it could: after some hundred requests of mixed lengths it was twice what is in use.
"""

import asyncio
import ctypes
from collections.abc import Callable

TRIM_SECONDS = 5.0


async def trim_malloc_periodically(trim: Callable[[int], int] | None, seconds: float = TRIM_SECONDS) -> None:
    """Calls `trim`, such as `malloc_trim()`, until it is cancelled; returns at once for None."""
    while trim is not None:
        await asyncio.sleep(seconds)
        await asyncio.to_thread(trim, 0)


def malloc_trim(library: object = None) -> Callable[[int], int] | None:
    """Returns glibc's malloc_trim, or None where the C library (this process's own, unless given) has none.

    https://man7.org/linux/man-pages/man3/malloc_trim.3.html
    """
    try:
        found: Callable[[int], int] = (library or ctypes.CDLL(None)).malloc_trim  # type: ignore[attr-defined]
    except (OSError, AttributeError, TypeError):
        return None
    return found
