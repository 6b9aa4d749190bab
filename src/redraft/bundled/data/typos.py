"""Keyboard slips."""

import random

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def mistype(word: str, rng: random.Random) -> str:
    """Mistypes a word [a-z]: swaps letters, drops or doubles one, or hits its neighbour on the keyboard.

    The first letter of longer words is unchanged and may be a capital.
    """
    at = rng.randrange(1, len(word)) if len(word) > 3 else rng.randrange(len(word))
    kind = rng.choice(("swap", "drop", "double", "neighbour", "neighbour"))
    if kind == "swap" and at + 1 < len(word) and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "drop":
        return word[:at] + word[at + 1 :]
    if kind == "double":
        return word[:at] + word[at] + word[at:]
    row = next(row for row in ROWS if word[at].lower() in row)
    place = row.index(word[at].lower())
    near = rng.choice(row[max(0, place - 1) : place] + row[place + 1 : place + 2])
    return word[:at] + near + word[at + 1 :]
