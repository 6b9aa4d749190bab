import asyncio
from collections.abc import Callable

import pytest

from redraft.utils import memory


def run(trim: Callable[[int], object] | None, seconds: float) -> None:
    async def some_rounds() -> None:
        async with asyncio.timeout(0.2):
            await memory.trim_malloc_periodically(trim, seconds)

    asyncio.run(some_rounds())


def test_free_memory_is_returned_again_and_again():
    asked: list[int] = []
    with pytest.raises(TimeoutError):
        run(asked.append, 0.01)
    assert len(asked) > 2
    assert set(asked) == {0}


def test_nothing_is_done_where_the_c_library_cannot():
    class Library:
        pass

    assert memory.malloc_trim(Library()) is None
    run(None, 0.01)
