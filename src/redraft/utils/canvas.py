"""Where an answer ends, for those who keep to token ids and for those who make text of them."""

from collections.abc import Collection, Sequence


def cut_canvas(canvas: Sequence[int], stop_ids: Collection[int], room: int) -> tuple[list[int], str | None]:
    """Returns what a finished canvas adds to an answer with `room` for more tokens, and why the answer ends there.

    "stop": one of `stop_ids`, which is cut off with what follows it; "length": no more room; None: the answer goes on.
    """
    end = next((i for i, token in enumerate(canvas) if token in stop_ids), None)
    if end is not None and end <= room:
        return list(canvas[:end]), "stop"
    if len(canvas) >= room:
        return list(canvas[:room]), "length"
    return list(canvas), None
