"""Whether a date or a time that was rewritten in another format exists, and can be the one in the text."""

import datetime
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

from redraft.text.prompts.values import MONTHS

_DATE_PARTS = {
    "YYYY": r"(?P<year>\d{4})",
    "Month": rf"(?P<month>{'|'.join(MONTHS['en'])})",
    "MM": r"(?P<month>\d\d)",
    "DD": r"(?P<day>\d\d)",
    "D": r"(?P<day>[1-9]\d?)",
    ".": r"\.",
}
_ANY_PART = re.compile("|".join(map(re.escape, _DATE_PARTS)))
DATE_FORMS = {
    form: re.compile(_ANY_PART.sub(lambda part: _DATE_PARTS[part[0]], form), re.ASCII)
    for form in ("YYYY-MM-DD", "DD.MM.YYYY", "MM/DD/YYYY", "DD/MM/YYYY", "YYYYMMDD", "D Month YYYY", "Month D, YYYY")
}
TIME_FORMS = {
    "HH:MM": re.compile(r"(?P<hour>\d\d):(?P<minute>\d\d)", re.ASCII),
    "HHhMM": re.compile(r"(?P<hour>\d\d)h(?P<minute>\d\d)", re.ASCII),
    "h:MM am/pm": re.compile(r"(?P<hour>(?!0\d)\d\d?):(?P<minute>\d\d) (?P<half>[ap])m", re.ASCII),
}

_ROMAN = dict(zip("I II III IV V VI VII VIII IX X XI XII".split(), range(1, 13), strict=True))
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth"
).split()
_ORDINAL = re.compile(rf"(?:(twent|thirt)(?:ieth|y[-\s]({'|'.join(_ORDINALS[:9])}))|({'|'.join(_ORDINALS)}))\b")
_WORD = re.compile(r"[^\W\d_]{3,}")
_ROMAN_MONTH = re.compile(r"\d[\s./-]{1,2}([IVX]+)(?=[\s./-]{1,2}\d)")
_COMPACT = re.compile(r"(?<!\d)(\d{4})(\d\d)(\d\d)(?!\d)")
_NUMERIC = re.compile(r"(?<!\d)(\d{1,4})([-/.]) ?(\d\d?)\2 ?(\d{1,4})(?!\d)")

_ORDER = re.compile(
    r"\b(?:dd?\W?mm?|mm?\W?dd?|(?:day|month) first|american|european|british|u[ks] (?:date|format|style))\b"
)
"""What says in which order the numbers of a date stand."""

_DAY = r"(?<![\d:.])(?P<day>\d\d?)(?:st|nd|rd|th|\.)?"
_OTHER_DAY = r"\s?(?:[-–&]|\b(?:to|until|till?|and|or|through|bis|und|oder)\b)\s?(?:the\s)?\d\d?(?:st|nd|rd|th|\.)?"
_MONTH_AFTER, _MONTH_BEFORE = r"\s(?:of\s)?(?P<month>[^\W\d_]{3,})", r"(?P<month>[^\W\d_]{3,})\.?\s(?:the\s)?"
_TWO_DAYS = (
    re.compile(_DAY + _OTHER_DAY + _MONTH_AFTER),
    re.compile(_MONTH_BEFORE + _DAY + _OTHER_DAY + r"(?![\d:.h])"),
)
"""Two days of one month: 3 to 5 May, or May 3-5."""
_ONE_DAY = (re.compile(_MONTH_BEFORE + _DAY + r"(?![\d:.h])"), re.compile(_DAY + _MONTH_AFTER))

_TWO_DIGIT_YEARS = range(1930, 2070)
"""The years that readers of two digits take them for."""

_HOUR_MARK = r"(?:h(?:ou)?rs?|h|uhr|hundred|o.?clock|[ap]\.?m|[ap])(?![^\W\d_])"
_CLOCK = re.compile(
    # Only what follows in these ways is of one time: 14:30, 14h30, 14 Uhr 30, hour=14 minute=30.
    r"(?<!\d)(?<!\d[:h])(\d\d?)(?:\s?[:h]\s?(\d\d)|\s?(?:uhr|heures?|hours?)\s(\d\d?)|\W{0,3}min[a-z]*\W{0,3}(\d\d?))(?!\d)"
)
_LOOSE_CLOCK = re.compile(r"(?<!\d)(\d\d?)(?=[\s.]\s?(\d\d)(?!\d))")
_DIGITS_CLOCK = re.compile(r"(?<!\d)(\d\d?)(\d\d)(?!\d)")
_HOUR = re.compile(rf"(?<!\d)(?<!\d[:.h])(\d\d?)(?!\d)(?!\s?(?:[:.h]|uhr)\s?\d\d(?!\d))(\s?{_HOUR_MARK})?")
_HALF = re.compile(r"(?<=\d)(?:\s?([ap])\.?\s?m\b|([ap])\b)|\b([ap])\.?m\b\.?(?=\s?\d)")
_HALF_WORDS = {"morning": "a", "midnight": "a", "noon": "p", "afternoon": "p", "evening": "p", "tonight": "p"}
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50}
_NUMBER_WORD = re.compile(
    rf"\b(?:zero\s)?(?:({'|'.join(_TENS)})(?:[-\s]({'|'.join(_NUMBERS[1:10])}))?|({'|'.join(_NUMBERS)}))\b"
)
_SPOKEN = re.compile(
    r"(?<![:.])\b(half|quarter|\d\d? ?min(?:ute)?s?|\d\d?(?=\spast))\s(past|after|to|before|till?)\s"
    r"(\d\d?|noon|midnight)\b"
)
_UNREAD = re.compile(r"\b(?:half|halb|quarter|viertel)\b|(?<![:.\dh])\d\d?\s(?:to|before|after|till?|vor|nach)\b")
"""What gives a time in a way that is not read here, such as half nine."""


def check_date(found: re.Match[str], text: str) -> Iterator[str]:
    """Yields a sentence for a date, read with a pattern of DATE_FORMS, that is no day or perhaps not the text's."""
    month = found["month"]
    number = int(month) if month.isdigit() else MONTHS["en"].index(month) + 1
    try:
        date = datetime.date(int(found["year"]), number, int(found["day"]))
    except ValueError:
        yield f"there is no day {found[0]}: check the date in the text"
    else:
        if not _names_date(date, _COMPACT.sub(r"\1-\2-\3", text)):
            yield f"the date {found[0]} does not stand in the text: check it"
        elif len(readings := _readings(text)) > 1:
            either = " or ".join(f"{one.day} {MONTHS['en'][one.month - 1]}" for one in readings)
            yield f"the date in the text can be read as {either}: check it, or write the month as a word"
        elif _has_two_days(text):
            yield f"the text has more than one day, of which the answer is {found[0]}: check it"


def _readings(text: str) -> list[datetime.date]:
    """Returns the days, in order, that the only numeric date of a text can mean where nothing else says which."""
    folded = _folded(text)
    numeric = _NUMERIC.findall(folded)
    is_told = _named_months(folded) or _ORDER.search(folded)
    return [] if len(numeric) != 1 or is_told else sorted(_dates_of(*numeric[0]) or ())


def _has_two_days(text: str) -> bool:
    """Returns whether a text names two days of a month as a word, as a range does."""

    def named(patterns: Iterable[re.Pattern[str]]) -> set[tuple[int, ...]]:
        # Each month has one day: in 3 May 24, the other number is the year.
        found = {one.start("month"): one for pattern in patterns for one in pattern.finditer(folded)}
        return {(int(one["day"]), *months) for one in found.values() if (months := _named_months(one["month"]))}

    folded = _folded(text)
    return bool(named(_TWO_DAYS)) or len(named(_ONE_DAY)) > 1


def _names_date(date: datetime.date, text: str) -> bool:
    """Returns whether a text can mean a date; one whose month may be a word of another language can."""
    folded = _folded(text)
    months = _named_months(folded) | {_ROMAN[one] for one in _ROMAN_MONTH.findall(text) if one in _ROMAN}
    numeric = _NUMERIC.findall(folded)
    if len(numeric) == 1 and not months and (dates := _dates_of(*numeric[0])) is not None:
        return date in dates
    there = Counter(int(number) for number in re.findall(r"(?<!\d)\d{1,4}(?!\d)", folded))
    year = date.year if there[date.year] else date.year % 100
    # A number says one thing: the 24 of 7/8/24 is no day once it is the year.
    if not there[year] or (year < 100 and date.year not in _TWO_DIGIT_YEARS):
        return False
    there[year] -= 1
    is_last = (date + datetime.timedelta(days=1)).day == 1 and "last day" in folded
    if there[date.day]:
        there[date.day] -= 1
    elif not is_last and date.day not in map(_ordinal, _ORDINAL.finditer(folded)):
        return False
    if date.month in months:
        return True
    if there[date.month]:
        return not months or bool(numeric)
    return not months and "month" not in folded and _WORD.search(folded) is not None


def _dates_of(first: str, separator: str, second: str, third: str) -> set[datetime.date] | None:
    """Returns the days that three numbers can mean, the usual order before the other; None without a clear year."""
    if len(first) == 4:
        orders = [(first, second, third), (first, third, second)]
    elif len(third) == 4:
        orders = [(third, second, first), (third, first, second)]
    else:
        return None
    dates = []
    for year, month, day in orders:
        try:
            dates.append(datetime.date(int(year), int(month), int(day)))
        except ValueError:
            continue
    has_one_order = len(first) == 4 or separator == "."
    return set(dates[:1] if has_one_order else dates)


def _named_months(folded: str) -> set[int]:
    """Returns the months that stand in a text as words, whole or cut."""
    words = set(_WORD.findall(folded))
    return {number for number, names in enumerate(_MONTH_NAMES, start=1) for word in words if _begins(names, word)}


def _begins(names: list[str], word: str) -> bool:
    return any(name.startswith(word) for name in names)


def _ordinal(found: re.Match[str]) -> int:
    tens, digit, alone = found.groups()
    if alone:
        return _ORDINALS.index(alone) + 1
    return (20 if tens == "twent" else 30) + (_ORDINALS.index(digit) + 1 if digit else 0)


def _folded(text: str) -> str:
    """Returns a text in small letters, without their accents."""
    return "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one)).casefold()


_MONTH_NAMES = [[_folded(name) for name in names] for names in zip(*MONTHS.values(), strict=True)]


def check_time(found: re.Match[str], text: str) -> Iterator[str]:
    """Yields a sentence for a time, read with a pattern of TIME_FORMS, that does not exist or not in the text."""
    hour, minute, half = int(found["hour"]), int(found["minute"]), found.groupdict().get("half")
    if minute > 59 or not (1 <= hour <= 12 if half else hour < 24 or (hour, minute) == (24, 0)):
        yield f"there is no time {found[0]}: check the time in the text"
        return
    hour = hour % 12 + 12 * (half == "p") if half else hour % 24
    if not _names_time(hour, minute, _NUMBER_WORD.sub(_number, _folded(text))):
        yield f"the time {found[0]} does not stand in the text: check it"


def _names_time(hour: int, minute: int, folded: str) -> bool:
    """Returns whether a text can mean a time, or gives one in words that are not read."""
    spoken = {_spoken_clock(*one) for one in _SPOKEN.findall(folded)}
    rest = _SPOKEN.sub(" ", folded)
    if _UNREAD.search(rest):
        return True
    halves = {half for groups in _HALF.findall(folded) for half in groups if half}
    # Ten minutes to noon are in the morning.
    halves |= {half for word, half in _HALF_WORDS.items() if re.search(rf"\b{word}\b", rest)}
    # A half of the day that is not given may be a word of another language.
    may_be_later = re.search(r"[^\W\d_]{4}", folded) is not None
    for said in {said for said, at in spoken | _clocks(rest) if at == minute}:
        if said % 24 == hour and (said == 0 or said > 12):
            return True
        if 1 <= said <= 12 and said % 12 == hour % 12:
            known = halves or ({"p" if 6 <= said < 12 else "a"} if "at night" in rest else set())
            if len(known) == 1:
                return known == {"p" if hour >= 12 else "a"}
            if known or said == hour or may_be_later:
                return True
    return False


def _number(found: re.Match[str]) -> str:
    tens, digit, alone = found.groups()
    return str(_NUMBERS.index(alone) if alone else _TENS[tens] + (_NUMBERS.index(digit) if digit else 0))


def _spoken_clock(distance: str, direction: str, towards: str) -> tuple[int, int]:
    """Returns the hour, of twelve, and the minute of such as ("quarter", "to", "9")."""
    named = re.match(r"\d+", distance)
    minutes = int(named[0]) if named else {"half": 30, "quarter": 15}[distance]
    hour = int(towards) if towards.isdigit() else 12
    return (hour, minutes) if direction in ("past", "after") else ((hour - 2) % 12 + 1, 60 - minutes)


def _clocks(folded: str) -> set[tuple[int, int]]:
    """Returns the hours and minutes that can stand in a text."""
    clear = {(int(hour), int(minute or by_hour or named)) for hour, minute, by_hour, named in _CLOCK.findall(folded)}
    loose = [*_LOOSE_CLOCK.findall(folded), *_DIGITS_CLOCK.findall(folded)]
    # Beside a clear time, a number is an hour only if it says so.
    alone = {(int(hour), 0) for hour, mark in _HOUR.findall(folded) if mark or not clear}
    said = {(hour, 0) for word, hour in (("noon", 12), ("midnight", 0)) if re.search(rf"\b{word}\b", folded)}
    return clear | {(int(hour), int(minute)) for hour, minute in loose} | alone | said
