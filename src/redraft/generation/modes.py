"""The ways in which an answer is written, and what each of them has no use for. Imports no torch."""

from collections.abc import Collection, Mapping
from typing import Any, Literal, cast, get_args

Mode = Literal["diffusion", "autoregressive", "verified", "auto"]
"""How an answer is written; of all but the first the tokens are the same."""

ANSWERING_MODES = get_args(Mode)
DRAFTED_MODES = ("verified", "auto")
"""Those whose answers are written causally, and may be drafted on canvases."""

_STOPPING = frozenset({"stopping", "stability_threshold", "confidence_threshold", "entropy_limit"})
_CANVAS = _STOPPING | {
    "canvas_length", "steps", "t_min", "t_max", "schedule", "acceptance", "entropy_bound",
}  # fmt: skip
UNUSED_SETTINGS = {"diffusion": frozenset[str](), "autoregressive": _CANVAS, "verified": _STOPPING, "auto": _STOPPING}
"""Sampler settings that a mode has no use for. When a draft is verified does not change the answer."""


def chosen_mode(asked: str | None, usual: str, given: Collection[str], *, has_start: bool) -> Mode:
    """Returns how an answer is written: as asked; where nobody says how, the usual way.

    What only a canvas has use for asks for one: a start, or one of the sampler settings in `given`.
    """
    if asked is None:
        asked = "diffusion" if has_start or not UNUSED_SETTINGS[usual].isdisjoint(given) else usual
    return cast(Mode, asked)


def is_greedy(mode: str, temperature: float) -> bool:
    """Returns whether an answer is the same for every seed. A canvas starts as noise, whatever its temperature."""
    return mode != "diffusion" and temperature == 0


def settings_of_mode(mode: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the sampler settings that a mode has for those that were given, by their flat names.

    An answer that is written causally is greedy unless a temperature is given. Raises ValueError for a mode that is
    unknown, and for a setting that has no effect in it.
    """
    if mode not in ANSWERING_MODES:
        raise ValueError(f"mode is {mode!r}, must be {' or '.join(ANSWERING_MODES)}")
    if unused := [name for name in given if name in UNUSED_SETTINGS[mode]]:
        raise ValueError(f"{', '.join(unused)} has no effect in mode {mode!r}; leave it out")
    return dict(given) if mode == "diffusion" else {"temperature": 0.0, **given}
