"""Texts with facts: phrasings, lists, mails and filler, put together so that every fact has one reading."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from redraft.bundled.data.extraction import mess
from redraft.bundled.data.extraction import records as extraction
from redraft.bundled.data.wide.fields import (
    Field,
    choose_name,
    choose_style,
    held_out_names,
    make_label,
    read_fields,
    spell,
)
from redraft.bundled.data.wide.grammar import Reference, Template, parse, read_table, read_templates
from redraft.bundled.data.wide.layouts import lay_out
from redraft.bundled.data.wide.values import LANGUAGES, Values

LANGUAGE_SHARES = {"en": 0.58, **dict.fromkeys(LANGUAGES[1:], 0.06)}
"""Of texts in the test sets."""
TRAINED_LANGUAGES = {"en": 0.79, **dict.fromkeys(LANGUAGES[1:], 0.03)}
OLD_SHARE = 0.55
"""Share of English phrasings that come from the first extraction task's, which are many."""
LISTING_SHARE = 0.3
"""Share of parts that are lists of names and values."""
ITEMS_SHARE = 0.03
MAIL_SHARE = 0.2
LABEL_SHARE = 0.45
"""Share of a list's fields that no table has, made of two random words."""
LOCALES = {
    "en": "en_US",
    "de": "de_DE",
    "fr": "fr_FR",
    "es": "es_ES",
    "it": "it_IT",
    "pt": "pt_PT",
    "nl": "nl_NL",
    "pl": "pl_PL",
}


@dataclass(frozen=True)
class Fact:
    """A field and its value in a text."""

    field: Field
    value: str


@dataclass(frozen=True)
class Part:
    """A stretch of text and the facts in it by field. `repeated`: fields with several values, which no object has."""

    text: str
    facts: Mapping[str, Fact] = field(default_factory=dict)
    repeated: tuple[Field, ...] = ()

    def fields(self) -> list[Field]:
        """Returns the fields of which the text has a value."""
        return [*(fact.field for fact in self.facts.values()), *self.repeated]


@dataclass(frozen=True)
class FactTemplate:
    """A template whose references are fields, by the names that its file has for them."""

    kind: str
    template: Template
    fields: Mapping[str, str]

    def field(self, name: str) -> str:
        """Returns the field that a reference stands for."""
        return self.fields.get(name, name)


@cache
def phrasings(language: str, *, is_seen: bool = True) -> tuple[FactTemplate, ...]:
    """Returns the phrasings of a language that training has, or those that it never has."""
    found = read_templates(f"texts_{language}" if is_seen else "texts_unseen")
    sections = found if is_seen else {kind: found[kind] for kind in found if kind.endswith(f" {language}")}
    return tuple(FactTemplate(kind, template, {}) for kind, templates in sections.items() for template in templates)


@cache
def old_phrasings(*, is_seen: bool = True) -> tuple[FactTemplate, ...]:
    """Returns the first extraction task's phrasings, English ones, in terms of the fields here."""
    kinds = {}
    for line in read_table("kinds")[""]:
        kind, _, pairs = line.partition(" : ")
        kinds[kind] = dict(pair.split("=") for pair in pairs.split())
    names = ("seen_prose.txt", "seen_notes.txt", "more.txt") if is_seen else ("unseen.txt",)
    found = []
    for name in names:
        kind = ""
        for line in (Path(extraction.__file__).parent / name).read_text(encoding="utf-8").splitlines():
            if line.startswith("# "):
                kind = line[2:].strip()
            elif line.strip():
                found.append(FactTemplate(kind, parse(line), kinds[kind]))
    return tuple(found)


@dataclass(frozen=True)
class Writer:
    """Writes texts of one language with values of one source."""

    values: Values
    language: str
    rng: random.Random
    is_seen: bool = True
    mistyped: float = 0.0

    def render(self, phrasing: FactTemplate, settled: Sequence[str | Reference] | None = None) -> Part:
        """Fills a phrasing with new values."""
        facts: dict[str, Fact] = {}
        text = ""
        for part in phrasing.template.settle(self.rng) if settled is None else settled:
            if isinstance(part, str):
                text += mess.mistype_words(part, self.rng, self.mistyped) if self.mistyped else part
            elif part.name[0] in "@~":
                text += self.values.fill(Template((part,)), self.rng)
            else:
                known = read_fields()[phrasing.field(part.name)]
                if known.id not in facts:
                    facts[known.id] = Fact(known, self.draw(known))
                text += facts[known.id].value
        return Part(text, facts)

    def draw(self, known: Field) -> str:
        """Draws a field's value."""
        return self.values.draw(known.type, self.language, self.rng)

    def phrase(self) -> Part:
        """Writes a phrasing."""
        choice = phrasings(self.language, is_seen=self.is_seen)
        if self.language == "en" and self.rng.random() < OLD_SHARE:
            choice = old_phrasings(is_seen=self.is_seen)
        return self.render(self.rng.choice(choice))

    def choose_fields(self, count: int, label_share: float) -> list[Field]:
        """Chooses fields that differ in type, unless they are roles; some are labels that no table has."""
        chosen: dict[str, Field] = {}
        for _ in range(3 * count):
            if self.rng.random() < label_share:
                name = make_label(self.values, self.rng)
                kind = self.rng.choice(
                    ("number", "word", "percent", "id", "date", "amount", "length", "yesno", "person", "duration")
                )
                candidate = Field(f"label {name}", kind, True, (name,), ())
                if name in held_out_names() or any(
                    set(name.split()) & set(one.names[0].split()) for one in chosen.values()
                ):
                    continue
            else:
                candidate = self.rng.choice(tuple(read_fields().values()))
            if fits(candidate, chosen.values()):
                chosen[candidate.id] = candidate
            if len(chosen) == count:
                break
        return list(chosen.values())

    def listing(self) -> Part:
        """Writes names and values as a list or a row of a table."""
        fields = self.choose_fields(self.rng.randint(2, 8), LABEL_SHARE)
        style = choose_style(self.rng)
        names = [spell(choose_name(one, self.language, self.rng), style) for one in fields]
        facts = {one.id: Fact(one, self.draw(one)) for one in fields}
        return Part(lay_out(names, [[fact.value for fact in facts.values()]], self.rng), facts)

    def rows(self, count: int, fields: Sequence[Field], empty: float = 0.0) -> tuple[list[dict[str, Fact]], str]:
        """Writes `count` rows of fields as a table or blocks; a share `empty` of the cells after the first is empty."""
        style = choose_style(self.rng)
        names = [spell(choose_name(one, self.language, self.rng), style) for one in fields]
        rows = [
            {one.id: Fact(one, self.draw(one)) for at, one in enumerate(fields) if not at or self.rng.random() >= empty}
            for _ in range(count)
        ]
        cells = [[row[one.id].value if one.id in row else None for one in fields] for row in rows]
        return rows, lay_out(names, cells, self.rng)

    def items(self) -> Part:
        """Writes a table of several items, from which an object takes nothing."""
        known = read_fields()
        fields = [
            known[name]
            for name in self.rng.choice((("quantity", "product", "unit_price"), ("sku", "quantity", "unit_price")))
        ]
        return Part(self.rows(self.rng.randint(2, 4), fields)[1], repeated=tuple(fields))

    def filler(self) -> str:
        """Writes a sentence without facts."""
        draw = self.rng.random()
        if draw < 0.5:
            return self.rng.choice(read_templates("filler")[self.language]).fill(self.rng, lambda _: "")
        if draw < 0.7 and self.language == "en":
            return self.rng.choice(_sentences())
        words = self.rng.choices(_lorem(self.language), k=self.rng.randint(4, 12))
        return " ".join(words).capitalize() + "."

    def mail(self, kind: str) -> Part:
        """Writes a part of a mail: head, quote or signature."""
        template = self.rng.choice(read_templates("mail")[f"{kind} {self.language}"])
        return self.render(FactTemplate(kind, template, {}))

    def compose(self, words: tuple[int, int] | None = None) -> Part:
        """Writes a text of about as many words as given, from the lower to the upper number (None: without filler)."""
        rng = self.rng
        count = rng.choice((1, 1, 1, 2, 2, 3) if words is None else (1, 2, 2, 3, 4))
        parts: list[Part] = []
        for _ in range(count):
            is_listing = rng.random() < LISTING_SHARE and self.is_seen
            add(parts, self.listing() if is_listing else self.phrase())
        if rng.random() < ITEMS_SHARE:
            add(parts, self.items())
        is_mail = rng.random() < MAIL_SHARE
        target = 0 if words is None else rng.randint(*words)
        texts = [part.text for part in parts]
        length = sum(len(text.split()) for text in texts)
        between = rng.choice((" ", "\n", "\n\n", "\n\n"))
        paragraphs: list[str] = []
        while length < target:
            sentences = [self.filler() for _ in range(rng.randint(1, 5))]
            length += sum(len(sentence.split()) for sentence in sentences)
            paragraphs.append(" ".join(sentences))
        for text in texts:
            paragraphs.insert(rng.randint(0, len(paragraphs)), text)
        if is_mail:
            paragraphs = self._as_mail(paragraphs, parts)
        text = between.join(paragraphs)
        if rng.random() < 0.12:
            text = mess.wrap(text, rng)
        return Part(text, merge(parts), tuple(one for part in parts for one in part.repeated))

    def _as_mail(self, paragraphs: list[str], parts: list[Part]) -> list[str]:
        """Puts a head before, a signature after, and quotes the later paragraphs, each now and then."""
        rng = self.rng
        if rng.random() < 0.5:
            head = self.mail("head")
            if add(parts, head):
                paragraphs = [head.text, *paragraphs]
        if len(paragraphs) > 1 and rng.random() < 0.5:
            at = rng.randint(1, len(paragraphs) - 1)
            quote = self.mail("quote")
            if add(parts, quote):
                older = "\n".join(f"> {line}" for line in "\n".join(paragraphs[at:]).split("\n"))
                paragraphs = [*paragraphs[:at], f"{quote.text}\n{older}"]
        elif rng.random() < 0.7:
            signature = self.mail("signature")
            if add(parts, signature):
                paragraphs = [*paragraphs, signature.text]
        return paragraphs


def fits(candidate: Field, present: Iterable[Field]) -> bool:
    """Tells whether a field can stand beside others: of another type, or each of them a role of its own."""
    return all(
        one.id != candidate.id
        and (one.type != candidate.type or (one.is_role and candidate.is_role))
        and not set(one.names) & set(candidate.names)
        for one in present
    )


def add(parts: list[Part], part: Part) -> bool:
    """Appends a part unless one of its facts could be confused with those before; returns whether it did."""
    present = [known for one in parts for known in one.fields()]
    if not all(fits(known, present) for known in part.fields()):
        return False
    parts.append(part)
    return True


def merge(parts: Iterable[Part]) -> dict[str, Fact]:
    """Returns the facts of all parts."""
    return {name: fact for part in parts for name, fact in part.facts.items()}


@cache
def _sentences() -> tuple[str, ...]:
    """Returns sentences of prose without numbers and names, from the repair task's real ones."""
    path = Path(extraction.__file__).parent.parent / "repair_sentences.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    said = re.compile(rf"\b({'|'.join(map(re.escape, held_out_names()))})\b", re.IGNORECASE)
    return tuple(line for line in lines if not re.search(r"[\d@/:\"'`_|<>]", line) and not said.search(line))


@cache
def _lorem(language: str) -> tuple[str, ...]:
    """Returns Faker's words of a language."""
    from faker import Faker

    words = {word for provider in Faker(LOCALES[language]).providers for word in getattr(provider, "word_list", ())}
    return tuple(sorted(word for word in words if word.isalpha() and word.lower() not in held_out_names()))
