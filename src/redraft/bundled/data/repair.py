"""Records of the repair task: a sentence with a few typos, and the sentence without them.

Fix the typos: The value is deterined when teh run starts.  →  The value is determined when the run starts.

Half of the sentences are real ones (repair_sentences.txt, made by tools/sentences.py), half are prose of the extraction
task. Typos are common misspellings (codespell's dictionary) and keyboard slips. A tenth of the sentences and a tenth of
the misspellings are held out.
"""

import random
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

from redraft.bundled.data.extraction.phrasings import Phrasing, read_phrasings
from redraft.bundled.data.extraction.records import HERE, more_phrasings, render
from redraft.bundled.data.extraction.values import ValueSource, is_held_out
from redraft.bundled.data.record import Record
from redraft.bundled.data.typos import mistype

SENTENCES = Path(__file__).parent / "repair_sentences.txt"
MAX_SENTENCE = 110
END = re.compile(r"(?<!\bDr)(?<!\bProf)(?<!\battn)(?<!\bmed)(?<!\b[A-Za-z])[.!?](?= [A-Z]|$)")
"""The end of a sentence: not after a title or a single letter, and before a capital."""
ANY_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?")
SLANG = frozenset(
    "adress cant cos cu didnt doesnt dont gimme gonna gotta hes im isnt ive kinda lemme lol nope ok pic pls plz ppl "
    "shes ta thats theres theyre thx tmrw u ur wanna wasnt whats wont ya yep youre".split()
)
"""Words that phrasings contain on purpose and that would be wrong in an answer."""
MIN_WORDS = 6
"""A phrasing with fewer words is a label rather than a sentence."""
WORD = re.compile(r"\b[A-Za-z]?[a-z]{2,}\b")
"""Ordinary words, in which a typo may be made; capitals alone do not tell names apart."""


@cache
def misspellings(held_out: bool) -> dict[str, tuple[str, ...]]:
    """Returns each word's common misspellings that have one correction: the held-out tenth or the rest."""
    found: dict[str, list[str]] = {}
    for line in (files("codespell_lib") / "data" / "dictionary.txt").read_text(encoding="utf-8").splitlines():
        wrong, right = line.split("->")
        if "," not in right and right.isalpha() and wrong.isalpha() and is_held_out(wrong) == held_out:
            found.setdefault(right.strip(), []).append(wrong)
    return {right: tuple(wrongs) for right, wrongs in found.items()}


@cache
def real_sentences(held_out: bool) -> tuple[str, ...]:
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if is_held_out(line) == held_out)


@cache
def _prose(held_out: bool) -> tuple[Phrasing, ...]:
    if held_out:
        return tuple(read_phrasings(HERE / "unseen.txt"))
    seen = [phrasing for phrasing in read_phrasings(HERE / "seen_prose.txt") if not words_of(phrasing) & SLANG]
    # Many other phrasings are chat, notes or deliberately broken English: not correct answers.
    known = {*misspellings(False), *misspellings(True)}.union(*map(words_of, seen))
    known |= {word.lower() for line in real_sentences(held_out=False) for word in ANY_WORD.findall(line)}
    plain = [phrasing for phrasing in more_phrasings() if words_of(phrasing) <= known]
    return (*seen, *(phrasing for phrasing in plain if len(words_of(phrasing)) >= MIN_WORDS))


def words_of(phrasing: Phrasing) -> set[str]:
    """Returns the distinct words between a phrasing's slots, in lower case."""
    return {word.lower() for text in phrasing.literals() for word in ANY_WORD.findall(text)}


def sentence(rng: random.Random, *, held_out: bool) -> tuple[str, frozenset[str]]:
    """Returns a correct sentence, or a few short ones, and the words in it that nobody could correct: names."""
    if rng.random() < 0.5:
        return rng.choice(real_sentences(held_out)), frozenset()
    while True:
        values, text = render(rng.choice(_prose(held_out)), ValueSource(held_out=held_out), rng)
        text = " ".join(text.split())
        # As many whole sentences from its start as fit.
        ends = [match.end() for match in END.finditer(text) if match.end() <= MAX_SENTENCE]
        if ends and ends[-1] >= 20:
            return text[: ends[-1]], frozenset(WORD.findall(" ".join(values.values())))


def add_typos(text: str, rng: random.Random, *, held_out: bool, spared: frozenset[str] = frozenset()) -> str:
    """Makes about one typo per eight words, in distinct words, none of them `spared`."""
    words = [match for match in WORD.finditer(text) if match[0] not in spared]
    if not words:
        return text
    known = misspellings(held_out)
    count = max(1, min(len(words), round(len(text.split()) / 8 + rng.uniform(-0.5, 1))))
    for match in sorted(rng.sample(words, count), key=lambda match: -match.start()):
        word = match[0]
        wrongs = known.get(word.lower())
        if wrongs and rng.random() < 0.7:
            wrong = rng.choice(wrongs)
            wrong = wrong.capitalize() if word[0].isupper() else wrong
        else:
            wrong = mistype(word, rng)
        text = text[: match.start()] + wrong + text[match.end() :]
    return text


def make_record(rng: random.Random, *, held_out: bool, known_errors: bool) -> Record:
    """Returns a sentence with typos, answered by the correct one; one in twenty has no typo."""
    right, spared = sentence(rng, held_out=held_out)
    wrong = right if rng.random() < 0.05 else add_typos(right, rng, held_out=not known_errors, spared=spared)
    return Record("repair", f"Fix the typos: {wrong}", right)


def training_record(seed: int, index: int) -> Record:
    """Returns record `index` of the endless training stream of `seed`."""
    return make_record(random.Random(f"repair/train/{seed}/{index}"), held_out=False, known_errors=True)


def held_out_records(count: int, *, seen: bool, seed: int = 0) -> Iterator[Record]:
    """Yields test records: sentences new to training, with misspellings that training has (`seen`) or has not."""
    for index in range(count):
        yield make_record(random.Random(f"repair/test/{seen}/{seed}/{index}"), held_out=True, known_errors=seen)
