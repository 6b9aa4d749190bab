"""Whether a value that was rewritten in another format can be the one in the text: its numbers, unit and sign."""

import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import pairwise

UNITS = {
    "weight": {"mg": 1, "g": 1_000, "kg": 1_000_000, "t": 1_000_000_000},
    "length": {"mm": 1, "cm": 10, "m": 1_000, "km": 1_000_000},
    "volume": {"ml": 1, "cl": 10, "l": 1_000},
    "size": {"kB": 1, "MB": 1_000, "GB": 1_000_000, "TB": 1_000_000_000},
    "duration": {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000},
}
"""The size of each unit in the smallest one of its kind."""
UNIT_NAMES = {
    "mg": "milligrams", "g": "grams", "kg": "kilograms", "t": "tonnes", "mm": "millimetres", "cm": "centimetres",
    "m": "metres", "km": "kilometres", "ml": "millilitres", "cl": "centilitres", "l": "litres", "kB": "kilobytes",
    "MB": "megabytes", "GB": "gigabytes", "TB": "terabytes", "ms": "milliseconds", "s": "seconds",
    "min": "minutes", "h": "hours",
}  # fmt: skip

MAX_WRITTEN = 40
"""Characters of a number: what is longer is none that is rewritten."""

_ASKED = re.compile(r"\b(?:amount|date|time)\b")
_NUMBER = re.compile(r"\d+(?:[.,'’_]\d+)*")
_GROUPED = re.compile(r"\d{1,3}(?:\s\d{3})+(?:[.,]\d+)?")
_QUANTITY = re.compile(r"([\d.,]+) ([A-Za-z]+)")
_AMOUNT = re.compile(r"(?:[A-Z]{3} )?([\d.,]+)(?: [A-Z]{3})?")
_TIME = re.compile(r"(\d\d?)[:h](\d\d)(?: ([ap])m)?")
_SIGNED = re.compile(r"(?<![\w)\]])[-−](?=[^\s\w]?\d)|\([\d.,'’]+\)(?=\s*\w)")
_DATE = re.compile(r"(?=.*\d{4})[\w ./,-]{8,20}")
_MULTIPLIED = re.compile(r"(?i)\b(?:dozen|hundred|thousand|million|billion|half)\b|\d ?(?:k|mn?|mio|bn)\b")
_ORDINAL = re.compile(r"(?i)(?:first|second|third|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|teen|tie)th)\b")


def numbers_in(text: str) -> set[Decimal]:
    """Returns the numbers that stand in a text, in each reading of their points, commas and spaces."""
    found = set()
    for written in (*_NUMBER.findall(text), *_GROUPED.findall(text)):
        if len(written) > MAX_WRITTEN:
            continue
        parts = re.split(r"\D", written)
        # 1.234 may be a thousand or one and a bit; 1.5 is not fifteen.
        if all(len(part) == 3 for part in parts[1:]):
            found.add(Decimal("".join(parts)))
        if len(parts) > 1:
            found.add(Decimal(f"{''.join(parts[:-1])}.{parts[-1]}"))
    return found


def check_rewritten(request: str, answer: str, text: str) -> Iterator[str]:
    """Yields a sentence for an answer that the text cannot mean, or may not mean.

    request: what stands before the text, such as "Write the time as HH:MM:"; others than for a date, a time, an amount
    or a quantity are not checked.
    """
    written = answer.strip()
    asked = _ASKED.search(request)
    kind = "" if asked is None else asked[0]
    if kind == "amount" and (found := _AMOUNT.fullmatch(written)):
        yield from _check_amount(found[1], text)
    elif kind == "date" and _DATE.fullmatch(written):
        yield from _check_date(written, text)
    elif kind == "time" and (found := _TIME.fullmatch(written)):
        hour, minute, half = int(found[1]), int(found[2]), found[3]
        if minute > 59 or not (1 <= hour <= 12 if half else hour <= 24):
            yield f"there is no time {written}: check the time in the text"
        elif not any(character.isdigit() for character in text):
            yield f"the time {written} does not stand in the text: check it"
    elif (found := _QUANTITY.fullmatch(written)) and found[2] in UNIT_NAMES:
        yield from _check_quantity(found[1], found[2], text)


def _check_amount(number: str, text: str) -> Iterator[str]:
    numbers = [Decimal(written) for written in re.findall(r"\d+", text) if len(written) <= MAX_WRITTEN]
    # "737 dollars, 77/100"
    known = numbers_in(text) | {whole + part / 100 for whole, part in pairwise(numbers) if part < 100}
    if not numbers_in(number) & known:
        yield f"the amount {number} does not stand in the text: check it"
    elif said := _MULTIPLIED.search(text) or _SIGNED.search(text):
        yield f"the text has {said[0].strip()!r} beside its amount, which the answer may not say: check it"


def _check_date(written: str, text: str) -> Iterator[str]:
    digits = re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", written)
    numbers = [int(part) for part in re.findall(r"\d+", digits)]
    compact = re.sub(r"(?<!\d)(\d{4})(\d\d)(\d\d)(?!\d)", r"\1-\2-\3", text)
    there = Counter(int(part) for part in re.findall(r"(?<!\d)\d{1,4}(?!\d)", compact))
    years = [number for number in numbers if number > 31]
    rest = Counter(number for number in numbers if number <= 31)
    missing = rest - there
    # A month, or a day, may be a word.
    may_miss = rest.total() > 1 and re.search(r"[^\W\d_]", text) is not None
    if _ORDINAL.search(text):
        missing.clear()
    if any(year not in there and year % 100 not in there for year in years) or missing.total() > may_miss:
        yield f"the date {written} does not stand in the text: check it"


def _check_quantity(number: str, unit: str, text: str) -> Iterator[str]:
    sizes = next(sizes for sizes in UNITS.values() if unit in sizes)
    named = [one for one in sizes if _names(one).search(text)]
    if not named:
        yield f"the text has none of the units {', '.join(sizes)} that {unit} can come from: check the answer"
        return
    try:
        value = Decimal(number) * sizes[unit]
    except InvalidOperation:
        value = Decimal(-1)
    if value not in {one * sizes[of] for one in numbers_in(text) for of in named}:
        yield f"the quantity {number} {unit} is not that of the text: check it"


def _names(unit: str) -> re.Pattern[str]:
    """Returns the pattern of a unit as texts have it: its sign, or its name in the singular or plural."""
    name = UNIT_NAMES[unit].removesuffix("s")
    american = name.replace("metre", "meter").replace("litre", "liter").replace("tonne", "ton")
    return re.compile(rf"(?i)(?<![^\W\d_])(?:{unit}|{name}s?|{american}s?)(?![^\W\d_])")
