import pytest


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' files need not survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
