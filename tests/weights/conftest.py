from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small tensors are slower on many threads, and the tests' files need not survive a power cut."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    yield
    torch.set_num_threads(threads)
