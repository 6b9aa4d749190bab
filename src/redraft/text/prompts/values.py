"""The values that texts have: months, currencies, countries, units, and numbers in each of their readings.

The data of the bundled models are made of these tables, and their answers are checked with them.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

MONTHS = {
    "en": "January February March April May June July August September October November December".split(),
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split(),
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split(),
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre".split(),
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre".split(),
    "nl": "januari februari maart april mei juni juli augustus september oktober november december".split(),
}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
CURRENCIES = {
    "EUR": ("€", "euros"), "USD": ("$", "dollars"), "GBP": ("£", "pounds"), "JPY": ("¥", "yen"),
    "CHF": ("Fr.", "francs"), "PLN": ("zł", "zloty"), "SEK": ("kr", "kronor"), "INR": ("₹", "rupees"),
    "BRL": ("R$", "reais"), "CZK": ("Kč", "crowns"),
}  # fmt: skip
COUNTRIES = {
    "Germany": "49", "France": "33", "Spain": "34", "Italy": "39", "Netherlands": "31", "Poland": "48", "Sweden": "46",
    "Austria": "43", "Switzerland": "41", "UK": "44", "Belgium": "32", "Portugal": "351", "Ireland": "353",
    "Finland": "358",
}  # fmt: skip
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

_NUMBER = re.compile(r"(?:(?<![\d.,])\.)?\d+(?:[.,'’_]\d+)*")
_GROUPED = re.compile(r"\d{1,3}(?:\s\d{3})+(?:[.,:]\d+)?")


def numbers_in(text: str) -> set[Decimal]:
    """Returns the numbers that stand in a text, in each reading of their points, commas and spaces."""
    return {number for _, readings in places_of_numbers(text) for number in readings}


def places_of_numbers(text: str) -> Iterator[tuple[re.Match[str], set[Decimal]]]:
    """Yields where a number stands in a text, with its readings; one with spaces is found in parts, and whole."""
    for pattern in (_NUMBER, _GROUPED):
        for found in pattern.finditer(text):
            if len(found[0]) <= MAX_WRITTEN:
                yield found, _readings(found[0])


def _readings(written: str) -> set[Decimal]:
    parts, found = re.split(r"\D", written), set()
    # 1.234 may be a thousand or one and a bit; 1.5 is not fifteen. The point of .5 may end a sentence.
    if not parts[0] or all(len(part) == 3 for part in parts[1:]):
        found.add(Decimal("".join(parts)))
    if len(parts) > 1:
        found.add(Decimal(f"{''.join(parts[:-1])}.{parts[-1]}"))
    return found
