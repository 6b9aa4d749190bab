"""Memory that is free goes back to the system now and then.

Kept prefixes lie between the large tensors of forwards, so glibc's heap has holes that it neither gives back nor fills
again as well as it could: after some hundred requests of mixed lengths it was twice what is in use.
"""

import asyncio
import ctypes
from collections.abc import Callable

SECONDS = 5.0


async def give_back_now_and_then(seconds: float = SECONDS) -> None:
    """Until it is cancelled; returns at once where the C library cannot do that."""
    trim = _trim()
    while trim is not None:
        await asyncio.sleep(seconds)
        await asyncio.to_thread(trim, 0)


def _trim() -> Callable[[int], int] | None:
    """glibc's malloc_trim, https://man7.org/linux/man-pages/man3/malloc_trim.3.html."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    return found
