"""The fields that can be asked for: their types, their many names, how names are spelled, and which are held out."""

import random
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from redraft.bundled.data import extraction
from redraft.bundled.data.wide.grammar import TABLES, read_table
from redraft.bundled.data.wide.values import Values

NATIVE_NAME_SHARE = 0.3
"""Share of names in the text's language, where it has some."""
OWNERS = "customer client supplier vendor contact company billing delivery shipping user guest office home work".split()
OWNED = ("email", "phone", "city", "country", "street", "postcode", "url")
OWNER_SHARE = 0.15
"""Share of names of these types that say whose it is: customer_email, billing city."""
USUAL_NAMES = 3
"""The first names of a field are never held out."""
HELD_OUT_PART = 6
"""One name in so many is held out."""


@dataclass(frozen=True)
class Field:
    """A field of the table.

    is_role: a text may hold another role of its type without holding this one. names: the first is its usual one.
    """

    id: str
    type: str
    is_role: bool
    names: tuple[str, ...]
    descriptions: tuple[str, ...]


@cache
def read_fields() -> dict[str, Field]:
    """Reads the table of fields. Raises ValueError for a line that is malformed."""
    found = {}
    for line in read_table("fields")[""]:
        match = re.fullmatch(r"(\w+)(!?) (\w+)(!?) : ([^\[\]]+?)(?: \[(.+)\])?", line)
        if match is None:
            raise ValueError(f"fields.txt: {line!r} is not 'id type : name, name [description; description]'")
        names = tuple(name.strip() for name in match[5].split(","))
        descriptions = tuple(part.strip() for part in (match[6] or "").split(";") if part)
        found[match[1]] = Field(match[1], match[3], bool(match[2] or match[4]), names, descriptions)
    return found


@cache
def native_names(language: str) -> dict[str, tuple[str, ...]]:
    """Returns further names by field in a language; none for English."""
    lines = (line.partition(" : ") for line in read_table("names").get(language, ()))
    return {field: tuple(name.strip() for name in names.split(",")) for field, _, names in lines}


@cache
def _literals() -> str:
    """Returns all literal text of the tables and phrasings that training reads, in lower case."""
    trained = [
        path
        for path in TABLES.glob("*.txt")
        if not path.stem.endswith("_unseen") and path.stem not in ("fields", "names")
    ]
    trained += [path for path in Path(extraction.__file__).parent.glob("*.txt") if path.stem != "unseen"]
    texts = [path.read_text(encoding="utf-8").replace("\\n", " ") for path in trained]
    texts += (text for field in read_fields().values() for text in field.descriptions)
    return "\n".join(texts).lower()


@cache
def held_out_names() -> frozenset[str]:
    """Returns the names that no training text has: a part by hash, without those that texts happen to say.

    Nor do they differ from another name only by spaces, as file name from filename.
    """
    names = [name for field in read_fields().values() for name in field.names]
    names += [name for code in read_table("names") for some in native_names(code).values() for name in some]
    written = Counter(_squeeze(name) for name in set(names))
    usual = {name for field in read_fields().values() for name in field.names[:USUAL_NAMES]}
    return frozenset(
        name
        for field in read_fields().values()
        for name in field.names
        if name not in usual and zlib.crc32(name.encode()) % HELD_OUT_PART == 0 and written[_squeeze(name)] == 1
        if not re.search(rf"\b{re.escape(name.lower())}\b", _literals())
    )


def _squeeze(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def names_of(field: Field, language: str, *, held_out: bool) -> tuple[str, ...]:
    """Returns the names of a field that training has, or those that it never has."""
    names = (*field.names, *native_names(language).get(field.id, ()))
    return tuple(name for name in names if (name in held_out_names()) == held_out)


def choose_name(field: Field, language: str, rng: random.Random, *, held_out: bool = False) -> str:
    """Chooses a name, in lower case with spaces; with `held_out`, one that training never has if there is one."""
    if held_out and (rare := names_of(field, language, held_out=True)):
        return rng.choice(rare)
    native = [name for name in native_names(language).get(field.id, ()) if name not in held_out_names()]
    if native and rng.random() < NATIVE_NAME_SHARE:
        return rng.choice(native)
    names = names_of(field, "en", held_out=False)
    # The usual name is asked for more often than the others.
    name = names[0] if rng.random() < 0.25 else rng.choice(names)
    if field.type in OWNED and not field.is_role and len(name.split()) == 1 and rng.random() < OWNER_SHARE:
        return f"{rng.choice(OWNERS)} {name}"
    return name


def make_label(values: Values, rng: random.Random) -> str:
    """Makes a label that no table has a field for, such as 'torque limit'; some are no words at all."""
    first, head = values.word("label_modifiers", rng), values.word("label_heads", rng)
    draw = rng.random()
    if draw < 0.15:
        return f"{first} {values.word('label_modifiers', rng)} {head}"
    return head if draw < 0.25 else first if draw < 0.3 else f"{first} {head}"


def spellings(name: str) -> Iterator[str]:
    """Yields the ways to write a name as a key: words, snake_case, camelCase, kebab-case, capitals and so on."""
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)?", name)
    yield name
    yield "_".join(words).lower()
    yield words[0].lower() + "".join(word[:1].upper() + word[1:] for word in words[1:])
    yield " ".join(word[:1].upper() + word[1:] for word in words)
    yield "_".join(words).upper()
    yield "".join(word[:1].upper() + word[1:] for word in words)
    yield "-".join(words).lower()
    yield name[:1].upper() + name[1:]
    yield name.upper()


SPELLING_SHARES = (30, 30, 10, 8, 3, 5, 3, 8, 2)


def spell(name: str, style: int) -> str:
    """Writes a name in a style, an index into `spellings`."""
    return list(spellings(name))[style]


def choose_style(rng: random.Random) -> int:
    """Chooses the spelling of a request's names."""
    return rng.choices(range(len(SPELLING_SHARES)), SPELLING_SHARES)[0]
