import asyncio

import pytest

from redraft.server import memory


def run(seconds: float) -> None:
    async def some_rounds() -> None:
        async with asyncio.timeout(0.2):
            await memory.give_back_now_and_then(seconds)

    asyncio.run(some_rounds())


def test_free_memory_is_given_back_again_and_again(monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(memory, "_trim", lambda: asked.append)
    with pytest.raises(TimeoutError):
        run(0.01)
    assert len(asked) > 2
    assert set(asked) == {0}


def test_where_the_c_library_cannot_nothing_is_done(monkeypatch):
    class Library:
        pass

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: Library())
    run(0.01)
