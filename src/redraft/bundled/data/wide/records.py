"""The records of the bundled model, by family: objects, arrays, normalizing, and refusals.

Every record is a function of a seed and its index, whatever was drawn before.
"""

import dataclasses
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from redraft.bundled.data import normalization
from redraft.bundled.data.record import Conversation
from redraft.bundled.data.wide import requests
from redraft.bundled.data.wide.grammar import Reference, read_templates
from redraft.bundled.data.wide.texts import (
    LANGUAGE_SHARES,
    TRAINED_LANGUAGES,
    Fact,
    FactTemplate,
    Part,
    Writer,
    fits,
    old_phrasings,
    phrasings,
)
from redraft.bundled.data.wide.values import Values
from redraft.text.prompts.rewriting import UNSAYABLE

REFUSAL = (
    "I can only extract fields from a text as JSON, and rewrite dates, times, amounts, phone numbers and quantities."
)
"""The one answer to prompts of other kinds."""
MAX_RECORDS = 8
MAX_ANSWER = 520
"""Characters of an array's answer: with three characters to a token, it fits into the shipped limit of 256 tokens."""
SCRAMBLED_SHARE = 0.2
MISTYPED_SHARES = (0.0,) * 6 + (0.05, 0.12)
UNSAYABLE_SHARE = 0.2
EMPTY_SHARE = 0.004
"""Share of texts that say nothing."""


@dataclass(frozen=True)
class Conditions:
    """What is drawn: texts of how many words (None: no filler), from which parts of the tables, in which wording."""

    words: tuple[int, int] | None = None
    is_seen: bool = True
    held_out_values: bool = False
    held_out_names: bool = False
    language: str | None = None
    languages: Mapping[str, float] = field(default_factory=lambda: LANGUAGE_SHARES)
    wording: str | None = None
    turns: int | None = None
    scrambled: float = SCRAMBLED_SHARE

    def writer(self, rng: random.Random) -> Writer:
        """Returns a writer of texts, in a language by its share unless one is given."""
        language = self.language or rng.choices(list(self.languages), list(self.languages.values()))[0]
        values = Values(held_out=self.held_out_values, scrambled=self.scrambled)
        mistyped = rng.choice(MISTYPED_SHARES) if language == "en" and self.scrambled else 0.0
        return Writer(values, language, rng, self.is_seen, mistyped)


TRAINING = Conditions(languages=TRAINED_LANGUAGES)


def make_object(rng: random.Random, conditions: Conditions = TRAINING) -> Conversation:
    """Makes a record that asks for fields of a text as a JSON object, now and then in a second turn."""
    writer = conditions.writer(rng)
    part = (
        writer.compose(conditions.words) if rng.random() >= EMPTY_SHARE else Part(rng.choice(("", "-", "n/a", "...")))
    )
    questions = requests.choose_questions(
        [part.facts], writer.language, rng, held_out=conditions.held_out_names, repeated=part.repeated
    )

    def answer(facts: Mapping[str, Fact], numbers: frozenset[str]) -> str:
        found = {name: fact.value for name, fact in facts.items()}
        return json.dumps(requests.make_answer(questions, found, numbers), ensure_ascii=False)

    request = requests.make_request(
        questions,
        part.text,
        writer.language,
        writer.values,
        rng,
        is_seen=conditions.is_seen,
        wording=conditions.wording,
    )
    messages, facts = request.messages, part.facts
    has_second = rng.random() < requests.SECOND_TURN_SHARE if conditions.turns is None else conditions.turns == 2
    if has_second and conditions.words is None:
        earlier = writer.compose() if rng.random() < 0.7 else Part(writer.filler())
        if rng.random() < requests.AGAIN_SHARE and not request.wording.startswith("system"):
            # The first turn asks; the second only brings the text.
            first = requests.make_request(
                questions,
                earlier.text,
                writer.language,
                writer.values,
                rng,
                is_seen=conditions.is_seen,
                wording="object",
            )
            messages = (
                *first.messages,
                ("assistant", answer(earlier.facts, frozenset())),
                ("user", requests.ask_again(part.text, writer.values, rng, is_seen=conditions.is_seen)),
            )
            request = dataclasses.replace(request, numbers=frozenset())
        elif request.wording.startswith("system"):
            messages = (
                messages[0],
                ("user", earlier.text),
                ("assistant", answer(earlier.facts, request.numbers)),
                messages[1],
            )
        else:
            others = requests.choose_questions([earlier.facts], writer.language, rng)
            first = requests.make_request(others, earlier.text, writer.language, writer.values, rng, wording="object")
            found = {name: fact.value for name, fact in earlier.facts.items()}
            before = json.dumps(requests.make_answer(others, found, first.numbers), ensure_ascii=False)
            messages = (*first.messages, ("assistant", before), messages[-1])
    kind = "second turn" if len(messages) > 2 else "object" if len(messages) == 1 else "system"
    return Conversation(kind, messages, answer(facts, request.numbers), writer.language)


def make_array(rng: random.Random, conditions: Conditions = TRAINING) -> Conversation:
    """Makes a record that asks for a JSON array with an object for each item of a text."""
    writer = conditions.writer(rng)
    count = rng.choices(range(1, MAX_RECORDS + 1), (4, 20, 24, 20, 12, 9, 6, 5))[0]
    items, text = _lines(writer, count) if rng.random() < 0.55 else _rows(writer, count)
    questions = requests.choose_questions(items, writer.language, rng, held_out=conditions.held_out_names, most=4)
    if rng.random() < 0.35:
        text = writer.values.fill(rng.choice(read_templates("arrays")["intro"]), rng) + "\n" + text
    elif rng.random() < 0.25:
        head, present = writer.phrase(), [fact.field for item in items for fact in item.values()]
        if all(
            fits(known, present) and not any(requests.could_mean(known, one.name, [known]) for one in questions)
            for known in head.fields()
        ):
            text = f"{head.text}\n\n{text}"
    if rng.random() < 0.25:
        text = f"{text}\n{writer.filler()}"
    if conditions.words is not None:
        while len(text.split()) < conditions.words[0]:
            text = f"{writer.filler()}\n{text}" if rng.random() < 0.5 else f"{text}\n{writer.filler()}"
    request = requests.make_request(
        questions,
        text,
        writer.language,
        writer.values,
        rng,
        is_array=True,
        is_seen=conditions.is_seen,
        wording=conditions.wording,
    )
    answer = [
        requests.make_answer(questions, {name: fact.value for name, fact in item.items()}, request.numbers)
        for item in items
    ]
    written = json.dumps(answer, ensure_ascii=False)
    if len(written) > MAX_ANSWER:
        return make_array(rng, conditions)
    return Conversation("array", request.messages, written, writer.language)


def _lines(writer: Writer, count: int) -> tuple[list[Mapping[str, Fact]], str]:
    """Repeats a phrasing with new values."""
    rng = writer.rng
    choice: Sequence[FactTemplate] = [FactTemplate("list", template, {}) for template in read_templates("arrays")[""]]
    if writer.language != "en" or not writer.is_seen or rng.random() < 0.4:
        pool = phrasings(writer.language, is_seen=writer.is_seen)
        if writer.language == "en" and rng.random() < 0.5:
            pool = old_phrasings(is_seen=writer.is_seen)
        choice = [one for one in pool if not any("\n" in text for text in one.template.literals())] or choice
    phrasing = rng.choice(choice)
    settled = list(phrasing.template.settle(rng))
    is_same = rng.random() < 0.7 or not any(isinstance(part, Reference) for part in settled)
    parts = [writer.render(phrasing, settled if is_same else None) for _ in range(count)]
    if rng.random() < 0.2:
        parts = [Part(f"{number}. {part.text}", part.facts) for number, part in enumerate(parts, start=1)]
    between = rng.choice(("\n", "\n", "\n", "\n\n", " ", "; "))
    return [part.facts for part in parts], between.join(part.text for part in parts)


def _rows(writer: Writer, count: int) -> tuple[list[Mapping[str, Fact]], str]:
    """Writes a table, or blocks of names and values, whose cells are empty now and then."""
    fields = writer.choose_fields(writer.rng.randint(2, 6), 0.35)
    rows, text = writer.rows(count, fields, 0.1 if writer.rng.random() < 0.4 else 0.0)
    return list(rows), text


def make_normalization(rng: random.Random, conditions: Conditions = TRAINING) -> Conversation:
    """Makes a record that asks to rewrite a value in a format, or one whose value cannot be said."""
    record = normalization.make_record(rng, seen=conditions.is_seen)
    head, _, written = record.prompt.partition(": ")
    words = head.split()
    kind, form = words[2], " ".join(words[4:])
    answer = record.answer
    if rng.random() < UNSAYABLE_SHARE:
        templates = read_templates("unsayable" if conditions.is_seen else "unsayable_unseen")[kind]
        written, answer = conditions.writer(rng).values.fill(rng.choice(templates), rng), UNSAYABLE
        if rng.random() < 0.3:
            written = rng.choice(normalization.AROUND).format(written)
    section = read_templates("normalize_requests")["seen" if conditions.is_seen else "unseen"]
    given = {"kind": kind, "form": form, "text": written.strip()}
    prompt = rng.choice(section).fill(rng, given.__getitem__)
    return Conversation("unsayable" if answer == UNSAYABLE else "normalize", (("user", prompt),), answer)


def make_refusal(rng: random.Random, conditions: Conditions = TRAINING) -> Conversation:
    """Makes a prompt of another kind, which gets the one honest answer."""
    writer = conditions.writer(rng)
    template = rng.choice(read_templates("foreign" if conditions.is_seen else "foreign_unseen")[""])
    text = writer.compose(conditions.words).text if "text" in template.names() else ""
    prompt = writer.values.fill(template, rng, text=text)
    system = rng.choice(read_templates("requests")["foreign_system"]) if rng.random() < 0.1 else None
    messages: requests.Messages = (("user", prompt),)
    if system is not None:
        messages = (("system", writer.values.fill(system, rng)), *messages)
    return Conversation("refusal", messages, REFUSAL, writer.language)


Make = Callable[[random.Random, Conditions], Conversation]
FAMILIES: dict[str, tuple[float, Make]] = {
    "object": (0.80, make_object),
    "normalize": (0.13, make_normalization),
    "refusal": (0.07, make_refusal),
}
"""The families: share of the examples, and how a record is made. Arrays are left out: a run
of which they were an eighth hardly learned them (1.7 % right)."""


def training_record(seed: int, index: int, words: tuple[int, int] | None = None, attempt: int = 0) -> Conversation:
    """Returns record `index` of the training stream of `seed`, with texts of so many words; each attempt is another."""
    rng = random.Random(f"wide/{seed}/{index}/{attempt}")
    families = {name: one for name, one in FAMILIES.items() if words is None or name != "normalize"}
    ((_, make),) = rng.choices(list(families.values()), [share for share, _ in families.values()])
    return make(rng, dataclasses.replace(TRAINING, words=words))


def validation_record(seed: int, index: int) -> Conversation:
    """Returns record `index` of a stream for validation: each family in turn, without random words or typing errors."""
    rng = random.Random(f"wide validation/{seed}/{index}")
    make = list(FAMILIES.values())[index % len(FAMILIES)][1]
    return make(rng, Conditions(scrambled=0.0))
