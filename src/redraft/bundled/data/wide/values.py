"""Values of all types, as written in texts: the table of types, on top of the first extraction task's values."""

import random
import re
from dataclasses import dataclass
from functools import cache

from redraft.bundled.data.extraction.values import DRAW, WORDS, ValueSource, is_held_out, scramble
from redraft.bundled.data.extraction.wide_values import WIDE
from redraft.bundled.data.wide.grammar import Template, read_table, read_templates

LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "pl")
NATIVE_SHARE = 0.6
"""Share of values that are written as their text's language does it, where the table says how."""
WIDE_SHARE = 0.5
RARE = "ąęłńśźżćřůőűğışțșħđþŵŷœæåßøõãçñéèêâîôûäöü" + "αβγδλπσωБДЖИЛПФЯбджилфя" + "東京大阪中文語한국" + "→™€½²·’„“…–—"
"""Characters of which many are no tokens of their own: values with them teach to copy byte by byte."""
RARE_SHARE = 0.03


@dataclass(frozen=True)
class Values:
    """A source of values. With `held_out`, entries of lists come from the part that training never draws.

    scrambled: share of values whose words and digits are random.
    """

    held_out: bool = False
    scrambled: float = 0.0

    def draw(self, kind: str, language: str, rng: random.Random) -> str:
        """Draws a value of a type of the table. KeyError for an unknown one."""
        types = read_templates("types")
        native = types.get(f"{kind} {language}")
        templates = native if native is not None and rng.random() < NATIVE_SHARE else types[kind]
        value = self.fill(rng.choice(templates), rng)
        if rng.random() < RARE_SHARE:
            value = _spice(value, rng)
        if self.scrambled and rng.random() < self.scrambled:
            value = scramble(value, rng)
        return value

    def fill(self, template: Template, rng: random.Random, **given: str) -> str:
        """Fills a template with values of Faker (`@`), words of lists (`~`), and what is `given` by name."""
        return template.fill(rng, lambda name: given[name] if name in given else self._resolve(name, rng))

    def word(self, name: str, rng: random.Random) -> str:
        """Draws an entry of a list of words."""
        if name in WORDS:
            return self._source.word(name, rng)
        return rng.choice(_words(name, self.held_out))

    def _resolve(self, name: str, rng: random.Random) -> str:
        if name.startswith("~"):
            return self.word(name[1:], rng)
        assert name.startswith("@"), name
        if (draw := DRAW.get(name[1:])) is None:
            return self._source.faker(name[1:], rng)
        further = WIDE.get(name[1:])
        return (draw if further is None or self.held_out or rng.random() >= WIDE_SHARE else further)(self._source, rng)

    @property
    def _source(self) -> ValueSource:
        return ValueSource(held_out=self.held_out, wide=0.0 if self.held_out else WIDE_SHARE)


@cache
def _words(name: str, held_out: bool) -> tuple[str, ...]:
    (line,) = read_table("words")[name]
    words = tuple(line.split("|"))
    # The held-out tenth of a short list may be empty; then both sides share its entries.
    return tuple(word for word in words if is_held_out(word) == held_out) or words


def _spice(value: str, rng: random.Random) -> str:
    """Replaces a letter or two by rare characters."""
    places = [match.start() for match in re.finditer(r"[^\W\d_]", value)]
    for at in rng.sample(places, min(len(places), rng.randint(1, 2))):
        value = value[:at] + rng.choice(RARE) + value[at + 1 :]
    return value
