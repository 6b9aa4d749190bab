"""Records of the repair task: a sentence with a few typing errors, and the sentence without them.

Fix the typos: The value is deterined when teh run starts.  →  The value is determined when the run starts.

Half of the sentences are real ones (repair_sentences.txt, made by tools/sentences.py), half are the prose of the
extraction task. Errors are misspellings that people make (codespell's dictionary) and slips of the keyboard. A tenth of
the sentences is held out, and so is a tenth of the misspellings.
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
from redraft.bundled.data.typing_errors import slip

SENTENCES = Path(__file__).parent / "repair_sentences.txt"
LONGEST = 110
END = re.compile(r"(?<!\bDr)(?<!\bProf)(?<!\battn)(?<!\bmed)(?<!\b[A-Za-z])[.!?](?= [A-Z]|$)")
"""Of a sentence: not behind a title or a single letter, and before a capital."""
ANY_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?")
SLANG = frozenset(
    "adress cant cos cu didnt doesnt dont gimme gonna gotta hes im isnt ive kinda lemme lol nope ok pic pls plz ppl "
    "shes ta thats theres theyre thx tmrw u ur wanna wasnt whats wont ya yep youre".split()
)
"""What is written so on purpose in phrasings, and would be a wrong answer."""
FEWEST_WORDS = 6
"""Of a phrasing that is a sentence rather than a label."""
WORD = re.compile(r"\b[A-Za-z]?[a-z]{2,}\b")
"""What an error may be made in: ordinary words, which names and numbers are not told from by capitals alone."""


@cache
def misspellings(held_out: bool) -> dict[str, tuple[str, ...]]:
    """Word → its common misspellings, the held-out tenth or the rest; only those with one correction."""
    found: dict[str, list[str]] = {}
    for line in (files("codespell_lib") / "data" / "dictionary.txt").read_text(encoding="utf-8").splitlines():
        wrong, right = line.split("->")
        if "," not in right and right.isalpha() and wrong.isalpha() and is_held_out(wrong) == held_out:
            found.setdefault(right.strip(), []).append(wrong)
    return {right: tuple(wrongs) for right, wrongs in found.items()}


@cache
def _sentences(held_out: bool) -> tuple[str, ...]:
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if is_held_out(line) == held_out)


@cache
def _prose(held_out: bool) -> tuple[Phrasing, ...]:
    if held_out:
        return tuple(read_phrasings(HERE / "unseen.txt"))
    seen = [phrasing for phrasing in read_phrasings(HERE / "seen_prose.txt") if not words_of(phrasing) & SLANG]
    # Much of the others is chat, notes or broken English on purpose, which is no right answer.
    known = {*misspellings(False), *misspellings(True)}.union(*map(words_of, seen))
    known |= {word.lower() for line in _sentences(held_out=False) for word in ANY_WORD.findall(line)}
    plain = [phrasing for phrasing in more_phrasings() if words_of(phrasing) <= known]
    return (*seen, *(phrasing for phrasing in plain if len(words_of(phrasing)) >= FEWEST_WORDS))


def words_of(phrasing: Phrasing) -> set[str]:
    """The distinct words that stand between a phrasing's slots, in lower case."""
    return {word.lower() for text in phrasing.literals() for word in ANY_WORD.findall(text)}


def sentence(rng: random.Random, *, held_out: bool) -> tuple[str, frozenset[str]]:
    """A right sentence, or a few short ones, and its words that nobody could mend: those of names."""
    if rng.random() < 0.5:
        return rng.choice(_sentences(held_out)), frozenset()
    while True:
        values, text = render(rng.choice(_prose(held_out)), ValueSource(held_out=held_out), rng)
        text = " ".join(text.split())
        # As many whole sentences from its beginning as fit.
        ends = [match.end() for match in END.finditer(text) if match.end() <= LONGEST]
        if ends and ends[-1] >= 20:
            return text[: ends[-1]], frozenset(WORD.findall(" ".join(values.values())))


def spoil(text: str, rng: random.Random, *, held_out: bool, spared: frozenset[str] = frozenset()) -> str:
    """The text with one error for about eight words, in distinct words, none of them `spared`."""
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
            wrong = slip(word, rng)
        text = text[: match.start()] + wrong + text[match.end() :]
    return text


def make_record(rng: random.Random, *, held_out: bool, known_errors: bool) -> Record:
    """A spoiled sentence and itself; now and then there is nothing to mend."""
    right, spared = sentence(rng, held_out=held_out)
    wrong = right if rng.random() < 0.05 else spoil(right, rng, held_out=not known_errors, spared=spared)
    return Record("repair", f"Fix the typos: {wrong}", right)


def training_record(seed: int, index: int) -> Record:
    """Record `index` of the endless training stream of `seed`."""
    return make_record(random.Random(f"repair/train/{seed}/{index}"), held_out=False, known_errors=True)


def held_out_records(count: int, *, seen: bool, seed: int = 0) -> Iterator[Record]:
    """Test records: sentences that training does not have, with misspellings that it knows or does not."""
    for index in range(count):
        yield make_record(random.Random(f"repair/test/{seen}/{seed}/{index}"), held_out=True, known_errors=seen)
