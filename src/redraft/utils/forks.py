"""Processes that were forked after a model was loaded: torch's threads stay behind, and a forward waits for them."""

import os

_loaders: set[int] = set()
"""The ids of this process, and of those it was forked from, that have loaded a model."""


def mark_loaded() -> None:
    """Notes that this process loads a model. Raises what `check_not_forked` raises."""
    check_not_forked()
    _loaders.add(os.getpid())


def is_forked() -> bool:
    """Returns whether this process was forked from one that had loaded a model."""
    return bool(_loaders) and os.getpid() not in _loaders


def check_not_forked() -> None:
    """Raises RuntimeError where this process was forked from one that had loaded a model: it would wait for ever."""
    if is_forked():
        raise RuntimeError(
            f"process {os.getpid()} was forked after a model was loaded, and the threads that compute stayed behind; "
            'start processes with multiprocessing.get_context("spawn"), or load the model only after the fork'
        )
