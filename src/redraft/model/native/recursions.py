"""The functions of conditioning.cpp, on arrays of numpy.

C positions of a canvas, K classes of tokens, S states of an automaton, E arcs.
"""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_RELEASING = 2**18
"""Arcs times positions from which on a call gives back the interpreter's lock: about a millisecond."""

_POINTER, _INTEGER = ctypes.c_void_p, ctypes.c_int64
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "condition": (None, *[_POINTER] * 4, _INTEGER, *[_POINTER] * 8, *[_INTEGER] * 3),
    "likeliest": (ctypes.c_double, *[_POINTER] * 4, _INTEGER, *[_POINTER] * 7, *[_INTEGER] * 3),
}


class NativeRecursions:
    """What a library built from conditioning.cpp offers: the twin of `PlainRecursions`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._run = {
            (name, is_releasing): make(*signature)((f"redraft_{name}", library))
            for name, signature in _SIGNATURES.items()
            for is_releasing, make in ((False, ctypes.PYFUNCTYPE), (True, ctypes.CFUNCTYPE))
        }

    def condition(
        self,
        arcs: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]],
        masses: NDArray[np.float64],
        state: int,
        ends: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        (length, classes), states = masses.shape, len(ends)
        after, probs = np.full((length + 1, states), -np.inf), np.zeros((length, classes))
        after[length, ends] = 0
        work = *_reached(arcs, length, states), np.empty(len(arcs[1])), np.empty(2 * states)
        self._call("condition", arcs, masses, state, after, probs, *work, sizes=(length, states, classes))
        return after, probs

    def likeliest(
        self,
        arcs: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]],
        scores: NDArray[np.float64],
        state: int,
        ends: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], float]:
        (length, classes), states = scores.shape, len(ends)
        after = np.empty(2 * states)
        after[:states] = np.where(ends, 0.0, -np.inf)
        choices, chosen = np.empty((length, states), dtype=np.int32), np.empty(length, dtype=np.int64)
        work = _reached(arcs, length, states)
        sizes = (length, states, classes)
        log_prob = self._call("likeliest", arcs, scores, state, after, choices, chosen, *work, sizes=sizes)
        return chosen, log_prob

    def _call(
        self,
        name: str,
        arcs: tuple[NDArray[np.int32], ...],
        numbers: NDArray[np.float64],
        state: int,
        *others: NDArray[Any],
        sizes: tuple[int, int, int],
    ) -> Any:
        # Held until the call is over: a copy that is made here has no other owner.
        given = [np.ascontiguousarray(one) for one in (*arcs, numbers)]
        run = self._run[name, sizes[0] * len(arcs[1]) > MIN_RELEASING]
        return run(*(one.ctypes.data for one in given), state, *(one.ctypes.data for one in others), *sizes)


def _reached(arcs: tuple[NDArray[np.int32], ...], length: int, states: int) -> tuple[NDArray[Any], ...]:
    """Returns room for `reach`: two bounds for each position, a queue, and what is known."""
    bounds = np.empty((2, length + 1), dtype=np.int32)
    return *bounds, np.empty(max(states, len(arcs[1])), dtype=np.int32), np.empty(states, dtype=np.uint8)
