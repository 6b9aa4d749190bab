"""Whether a text that was rewritten as asked can be right: its format, and the numbers, unit and sign of its value."""

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from itertools import pairwise, product

from redraft.text.checks import brief
from redraft.text.prompts.moments import DATE_FORMS, TIME_FORMS, check_date, check_time
from redraft.text.prompts.values import (
    COUNTRIES,
    CURRENCIES,
    MAX_WRITTEN,
    UNIT_NAMES,
    UNITS,
    numbers_in,
    places_of_numbers,
)

UNSAYABLE = "cannot be said"
"""The answer of a model that knows it where the text does not determine the value that is to be rewritten."""

Check = Callable[[re.Match[str], str], Iterator[str]]

_CURRENCY = r"(?P<currency>[A-Z]{3})"
_AMOUNT_FORMS = {
    "0.00 CUR": re.compile(rf"(?P<number>[-−]?\d+\.\d\d) {_CURRENCY}", re.ASCII),
    "CUR 0,000.00": re.compile(rf"{_CURRENCY} (?P<number>[-−]?\d{{1,3}}(?:,\d{{3}})*\.\d\d)", re.ASCII),
    "0.000,00 CUR": re.compile(rf"(?P<number>[-−]?\d{{1,3}}(?:\.\d{{3}})*,\d\d) {_CURRENCY}", re.ASCII),
}
_PHONE_FORMS = {
    "E.164": re.compile(r"\+(?P<digits>[1-9]\d{4,14})", re.ASCII),
    "00 and digits": re.compile(r"00(?P<digits>[1-9]\d{4,14})", re.ASCII),
    "+CC NUMBER": re.compile(r"\+(?P<digits>[1-9]\d{0,2} \d{4,14})", re.ASCII),
}

_MINUS = re.compile(r"(?:(?<![\w)\]])[-−]|\b(?i:minus)\s)(?=[^\s\w]?\d)")
_NEGATIVE = re.compile(rf"{_MINUS.pattern}|\([\d.,'’]+\)(?=\s*\w)")
"""What lessens an amount: accounts have those that are below zero in brackets."""
_MULTIPLIED = re.compile(r"(?i)(\d[\d.,]*)\s?(?:dozen|hundred|thousand|[mb]illions?|k|mn?|mio|bn)\b")
MAX_BETWEEN = 40
"""Characters between the two numbers of an amount."""
_HUNDREDTHS = re.compile(
    r"(?<!\d)(\d{1,40}) ?(?:cents?|pence|penny|pennies|centimes?|grosz[ey]?|ore|öre|paise|paisa|centavos?|hellers?)\b",
    re.IGNORECASE,
)
_OTHER_NAMES = {
    "EUR": "euro cent cents", "USD": "us$ dollar buck bucks cent cents", "GBP": "pound sterling quid pence penny",
    "JPY": "yens 円", "CHF": "fr sfr franc franken", "PLN": "złoty złotych zlotys", "SEK": "krona kronas",
    "INR": "rs rupee", "BRL": "real", "CZK": "crown koruna korun kc",
}  # fmt: skip
"""What currencies are called too."""
_FOREIGN = "".join(
    f"(?<!{country} )"
    for country in (
        *("australian", "canadian", "hong kong", "singapore", "zealand", "taiwan", "jamaican", "egyptian", "syrian"),
        *("lebanese", "sudanese", "pakistani", "sri lankan", "nepalese", "danish", "norwegian", "icelandic"),
    )
)
"""Whose dollars, pounds, crowns and rupees are not those that are meant without a country."""
_GAP = re.compile(r"\s?[-−(]?")
"""What may stand between a currency and its amount."""
_PHONE = re.compile(r"\d(?:[\s().\-/–]{0,5}\d)*")
_BESIDE_UNIT = re.compile(r"[\s-]?([^\W\d_]+)")
_BETWEEN_PARTS = re.compile(r"[\s,]{0,3}(?:and\s)?")
_OTHER_UNITS = {
    "m": "min", "mins": "min", "sec": "s", "secs": "s", "hr": "h", "hrs": "h", "kilo": "kg", "kilos": "kg", "kgs": "kg",
}  # fmt: skip
"""What units are called too."""


def check_rewritten(request: str, answer: str, text: str, *, is_free: bool = True) -> Iterator[str]:
    """Yields a sentence for an answer that lacks the format asked for, or whose value the text may not mean.

    request: what stands before the text, such as "Write the time as HH:MM:"; others than for a date, a time, an amount,
    a phone number, a quantity or a text without typos are not checked, nor is a format that is not known. is_free:
    whether the model alone chose the answer's format; a language that it is held to may ask for another.
    """
    written = answer.strip()
    if written == UNSAYABLE:
        return
    asked = _ASKED.search(request)
    if asked is None:
        if _REPAIR.search(request):
            yield from _check_repaired(written, text)
        return
    kind, form = asked["kind"], asked["form"]
    check, forms = _KINDS[kind]
    if form in forms:
        forms = {form: forms[form]}
    found = [list(check(match, text)) for pattern in forms.values() if (match := pattern.fullmatch(written))]
    if found:
        # In a format that is not known it is right in any reading.
        yield from min(found, key=len)
    elif form in forms and is_free:
        name = "phone number" if kind == "phone" else kind
        yield f"the answer {brief(written)} is no {name} {'in' if kind in UNITS else 'as'} {form}: check it"


def _check_amount(found: re.Match[str], text: str) -> Iterator[str]:
    number, currency = found["number"], found["currency"]
    whole, name = _HUNDREDTHS.sub("", text), _names_of(currency)
    # A number beside the currency is the amount; another one may be a day or a count.
    known = (_numbers_beside(name, whole) or numbers_in(whole)) | set(_with_hundredths(text))
    value = numbers_in(number)
    times = re.compile(rf"(?i)\b(?:half(?: an?)?|dozen|hundred|thousand|[mb]illions?)(?:\s|(?=\W))(?:{name.pattern})")
    followed = (said for said in _MULTIPLIED.finditer(text) if numbers_in(said[1]) & value)
    if not value & known:
        yield f"the amount {number} does not stand in the text: check it"
    elif said := next(followed, None) or times.search(text):
        yield _said_beside(said, "amount")
    else:
        yield from _check_sign(number, text, "amount")
    if not name.search(text):
        yield f"the currency {currency} does not stand in the text: check it"


def _numbers_beside(name: re.Pattern[str], text: str) -> set[Decimal]:
    """Returns the numbers in a text that stand directly before or behind a currency's name."""
    names = [one.span() for one in name.finditer(text)]
    begun = {start - space for start, _ in names for space in (0, 1) if not text[start - space : start].strip()}
    ended = {at for _, end in names for at in (end, end + len(_GAP.match(text, end)[0]))}  # type: ignore[index]
    places = places_of_numbers(text) if names else ()
    return {one for place, readings in places if place.end() in begun or place.start() in ended for one in readings}


def _with_hundredths(text: str) -> Iterator[Decimal]:
    """Yields the amounts that a text has in two numbers, "737 dollars, 77/100", or in hundredths: "77 cents"."""
    yield from (Decimal(written) / 100 for written in _HUNDREDTHS.findall(text))
    numbers = [one for one in re.finditer(r"\d+", text) if len(one[0]) <= MAX_WRITTEN]
    for whole, part in pairwise(numbers):
        between = text[whole.end() : part.start()]
        if len(part[0]) > 2 or len(between) > MAX_BETWEEN:
            continue
        # 12 USD and 13 EUR are two amounts, and so are EUR 12 and EUR 13.
        ends_apart = not _HUNDREDTHS.match(text, part.start()) and _ANY_CURRENCY.match(text, part.end())
        # Nor are 10 m and 20 EUR one.
        has_two = ends_apart or (_SECOND_AMOUNT.search(between) and _ANY_CURRENCY.search(between))
        if not has_two or _HUNDREDTHS.match(text, part.start()):
            yield Decimal(whole[0]) + Decimal(part[0]) / 100


def _check_sign(number: str, text: str, kind: str) -> Iterator[str]:
    said = (_NEGATIVE if kind == "amount" else _MINUS).search(text)
    if number[0] not in "-−":
        if said:
            yield _said_beside(said, kind)
    elif not said:
        yield f"the text has no sign before its {kind}: check the answer's"


def _said_beside(said: re.Match[str], kind: str) -> str:
    return f"the text has {said[0].strip()!r} beside its {kind}, which the answer may not say: check it"


def _names_of(currency: str) -> re.Pattern[str]:
    """Returns the pattern of a currency as texts have it: its code, its sign, or its name."""
    names = [currency, *CURRENCIES.get(currency, ()), *_OTHER_NAMES.get(currency, "").split()]
    # The $ of A$ and R$ is another one.
    pattern = "|".join(rf"(?<![^\W\d_]){_FOREIGN}{re.escape(name)}(?![^\W\d_])" for name in names)
    return re.compile(pattern, re.IGNORECASE)


_ANY_CURRENCY = re.compile(rf"(?i:\s?(?:{'|'.join(_names_of(one).pattern for one in CURRENCIES)}))|\s?\b[A-Z]{{3}}\b")
_SECOND_AMOUNT = re.compile(r"(?:\band\b|[,;&+]).*[^\s\d]\s*$")


def _check_phone(found: re.Match[str], text: str) -> Iterator[str]:
    digits = found["digits"].replace(" ", "")
    # The zero of +44 (0) is dialled within the country alone.
    numbers = [re.sub(r"\D", "", number.replace("(0)", "")) for number in _PHONE.findall(text)]
    there = {number.lstrip("0") for number in numbers}
    if digits in there:
        return
    national = [size for size in (1, 2, 3) if digits[size:] in there or digits[size:] in numbers]
    named = {code for country, code in COUNTRIES.items() if re.search(rf"\b{country}\b", text)}
    if not national:
        yield f"the phone number {found[0]} does not stand in the text: check it"
    elif not any(digits[:size] in there | named for size in national):
        yield f"the country code of {found[0]} does not stand in the text: check it"


def _check_quantity(found: re.Match[str], text: str) -> Iterator[str]:
    number, unit = found["number"], found["unit"]
    sizes = next(sizes for sizes in UNITS.values() if unit in sizes)
    named = [one for one in sizes if _names(one).search(text)]
    if not named:
        yield f"the text has none of the units {', '.join(sizes)} that {unit} can come from: check the answer"
        return
    try:
        value = Decimal(number.lstrip("-−")) * sizes[unit]
    except InvalidOperation:
        value = Decimal(-1)
    if value not in _quantities(text, sizes, named):
        yield f"the quantity {number} {unit} is not that of the text: check it"
    else:
        yield from _check_sign(number, text, "quantity")


def _quantities(text: str, sizes: Mapping[str, int], named: list[str]) -> set[Decimal]:
    """Returns the quantities that a text can mean, in the smallest unit: each number with its unit, or with any."""
    found: set[Decimal] = set()
    chain: list[set[Decimal]] = []
    last_end, last_unit = 0, ""
    for place, readings in places_of_numbers(text):
        behind = _BESIDE_UNIT.match(text, place.end())
        unit = next((one for one in named if behind and _names(one).fullmatch(behind[1])), None)
        end = behind.end() if behind and unit else place.end()
        goes_on = chain and _BETWEEN_PARTS.fullmatch(text, last_end, place.start())
        if unit is None and goes_on and last_unit == "h":
            unit = "min"
        if unit is None:
            found |= {one * sizes[of] for one in readings for of in named}
            continue
        # 2 min 30 s are one quantity.
        if not (goes_on and sizes[unit] < sizes[last_unit]):
            found |= _sums(chain)
            chain = []
        chain.append({one * sizes[unit] for one in readings})
        last_end, last_unit = end, unit
    return found | _sums(chain)


def _sums(parts: list[set[Decimal]]) -> set[Decimal]:
    return {sum(choice, Decimal(0)) for choice in product(*parts)} if parts else set()


def _names(unit: str) -> re.Pattern[str]:
    """Returns the pattern of a unit as texts have it: its sign, or its name in the singular or plural."""
    name = UNIT_NAMES[unit].removesuffix("s")
    american = name.replace("metre", "meter").replace("litre", "liter").replace("tonne", "ton")
    others = "".join(f"|{other}" for other, of in _OTHER_UNITS.items() if of == unit)
    return re.compile(rf"(?i)(?<![^\W\d_])(?:{unit}|{name}s?|{american}s?{others})(?![^\W\d_])")


def _check_repaired(written: str, text: str) -> Iterator[str]:
    """Yields a sentence for a text without its typos that is much longer or shorter than it was, or repeats its end."""
    if not len(text) / 2 - 10 < len(written) < 2 * len(text) + 10:
        yield f"the answer has {len(written)} characters, and the text {len(text)}: check it"
    elif (end := _repeated_end(written)) and end not in text:
        yield f"the answer ends in {brief(end)}, which the text does not repeat: check it"


def _repeated_end(written: str) -> str:
    """Returns the end of a text that says the same at least three times; "" if nothing is said so often."""
    for period in range(1, 40):
        length = max(3 * period, 12)
        end = written[-length:]
        if len(end) == length and end[period:] == end[:-period]:
            return end
    return ""


def _unit_form(unit: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<number>[-−]?[\d.,]+) (?P<unit>{unit})", re.ASCII)


_KINDS: dict[str, tuple[Check, Mapping[str, re.Pattern[str]]]] = {
    "date": (check_date, DATE_FORMS),
    "time": (check_time, TIME_FORMS),
    "amount": (_check_amount, _AMOUNT_FORMS),
    "phone": (_check_phone, _PHONE_FORMS),
    **{kind: (_check_quantity, {unit: _unit_form(unit) for unit in units}) for kind, units in UNITS.items()},
}
_ASKED = re.compile(
    rf"\b(?P<kind>{'|'.join(_KINDS)})\b(?:.{{0,40}}\b(?:as|in|to|form|format)\s+(?P<form>\S.*?)[\s:.?]*$)?"
)
_REPAIR = re.compile(r"\btypos\b")
