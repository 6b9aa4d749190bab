"""Messy texts: keyboard slips, and the traces of mail programs, scanners and tables.

Only the text around the values is changed: a value appears in the text as it does in the answer.
"""

import random
import re
from collections.abc import Sequence

from redraft.bundled.data.typos import mistype

BEFORE = (
    "FYI", "fwd:", "[EXTERNAL]", "see below", "Hi,", "---------- Forwarded message ----------", "note to self:", "#12",
    "Re: Re: question", "***", "(copied from the chat)", "OCR page 1/1", "<!-- begin -->",
)  # fmt: skip
AFTER = (
    "--\nSent from my phone", "Best\n--\nThis message is confidential.", "Thanks!", "[end]", "====", "please print on both sides",
    "(2 attachments)", "Unsubscribe | Privacy", "...", "pls confirm", "<!-- end -->", "|_|", "Sent with one hand",
)  # fmt: skip
WORD = re.compile(r"[a-z]{4,}")


def mistype_words(text: str, rng: random.Random, rate: float) -> str:
    """Mistypes each longer word of a text between values with probability `rate`."""
    return WORD.sub(lambda match: mistype(match[0], rng) if rng.random() < rate else match[0], text)


def wrap(text: str, rng: random.Random) -> str:
    """Quotes or tags the text, or adds a line or noise before or after it."""
    choice = rng.random()
    if choice < 0.35:
        text = f"{rng.choice(BEFORE)}{rng.choice((' ', chr(10), chr(10) * 2))}{text}"
    elif choice < 0.7:
        text = f"{text}{rng.choice((' ', chr(10), chr(10) * 2))}{rng.choice(AFTER)}"
    elif choice < 0.8:
        text = "\n".join(f"> {line}" for line in text.split("\n"))
    elif choice < 0.9:
        tag = rng.choice(("p", "div", "td", "li", "pre"))
        text = f"<{tag}>{text}</{tag}>"
    else:
        noise = "".join(rng.choice("~#*_|.-=") for _ in range(rng.randint(2, 6)))
        text = rng.choice((f"{noise} {text}", f"{text} {noise}", f"{noise}\n{text}\n{noise}"))
    return text


def make_table(values: Sequence[tuple[str, str]], rng: random.Random) -> str:
    """Writes names and values as a table with one row, or with two columns."""
    names = [name.replace("_", rng.choice(("_", " ", "-"))) for name, _ in values]
    style = rng.choice((str.lower, str.title, str.upper))
    names = [style(name) for name in names]
    cells = [value for _, value in values]
    mark = rng.choice((" | ", "|", "\t", ";", "  "))
    if rng.random() < 0.5:
        rows = [mark.join(names), mark.join(cells)]
        if mark == " | " and rng.random() < 0.5:
            rows.insert(1, " | ".join("---" for _ in names))
    else:
        rows = [f"{name}{mark}{cell}" for name, cell in zip(names, cells, strict=True)]
    if mark == "|" and rng.random() < 0.5:
        rows = [f"|{row}|" for row in rows]
    return "\n".join(rows)
