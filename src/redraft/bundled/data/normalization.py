"""Records of the normalizing task: a date, time, amount, phone number or quantity to be rewritten in a named format.

Write the date as YYYY-MM-DD: Sunday, 3rd of March 2024  →  2024-03-03

A way of writing a value in the prompt (a *style*) is a function of the value. Training draws the styles of this file;
half of the test set uses those of unseen_styles.py, whose author had not seen these. Every written value has a single
reading: numeric dates with slashes have a day above 12, and decimals are never three digits long where they could be
read as a group of thousands.
"""

import datetime
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redraft.bundled.data import unseen_styles
from redraft.bundled.data.extraction.values import ordinal
from redraft.bundled.data.record import Record
from redraft.text.prompts.values import COUNTRIES, CURRENCIES, DAYS, MONTHS, UNIT_NAMES, UNITS

Draw = random.Random


@dataclass(frozen=True)
class ValueKind:
    """A kind of value: how it is drawn, the styles it appears in, and the formats it is asked for in.

    A style returns None for a value that it cannot write without a second reading.
    """

    draw: Callable[[Draw], Any]
    seen: tuple[Callable[..., str | None], ...]
    unseen: tuple[Callable[..., str | None], ...]
    forms: Mapping[str, Callable[..., str]]


def _date(rng: Draw) -> datetime.date:
    return datetime.date(rng.randint(1950, 2049), 1, 1) + datetime.timedelta(days=rng.randrange(365))


def _month(date: datetime.date, rng: Draw, language: str = "en", *, short: bool = False) -> str:
    name = MONTHS[language][date.month - 1]
    return (name[:3] if short else name) if rng.random() < 0.9 else name.upper()


def _foreign(date: datetime.date, rng: Draw) -> str:
    language = rng.choice(("de", "fr", "es", "it", "nl"))
    month = _month(date, rng, language)
    if language == "de":
        return f"{date.day}. {month} {date.year}"
    return f"{date.day} de {month} de {date.year}" if language == "es" else f"{date.day} {month} {date.year}"


DATE = ValueKind(
    draw=_date,
    seen=(
        lambda d, _: d.isoformat(),
        lambda d, _: f"{d:%Y/%m/%d}",
        lambda d, _: f"{d:%d.%m.%Y}",
        lambda d, _: f"{d.day}.{d.month}.{d.year}",
        lambda d, _: f"{d.day}.{d.month}.{d:%y}",
        lambda d, _: f"{d:%Y%m%d}",
        lambda d, r: f"{d.day} {_month(d, r)} {d.year}",
        lambda d, r: f"{_month(d, r)} {d.day}, {d.year}",
        lambda d, r: f"{_month(d, r)} {ordinal(d.day)}, {d.year}",
        lambda d, r: f"{ordinal(d.day)} of {_month(d, r)} {d.year}",
        lambda d, r: f"{d.day} {_month(d, r, short=True)} {d.year}",
        lambda d, r: f"{_month(d, r, short=True)} {d.day} {d.year}",
        lambda d, r: f"{d:%d}-{_month(d, r, short=True)}-{d:%y}",
        lambda d, r: f"{DAYS[d.weekday()]}, {_month(d, r)} {d.day}, {d.year}",
        lambda d, r: f"{DAYS[d.weekday()][:3]} {d.day} {_month(d, r, short=True)} {d.year}",
        lambda d, _: f"{d:%d/%m/%Y}" if d.day > 12 else None,
        lambda d, _: f"{d:%m/%d/%Y}" if d.day > 12 else None,
        lambda d, r: f"{d.isoformat()}T{_clock(r)}",
        lambda d, r: f"{d:%d}/{_month(d, r, short=True)}/{d.year}:{_clock(r)}",
        lambda d, r: f"{d.isoformat()} {_clock(r)}",
        lambda d, _: f"{d:%Y.%m.%d}",
        lambda d, _: f"{d:%d-%m-%Y}" if d.day > 12 else None,
        lambda d, _: f"{d.isoformat()} ({DAYS[d.weekday()][:3]})",
        lambda d, r: f"{d:%d}{_month(d, r, short=True)}{d.year}",
        lambda d, r: f"{ordinal(d.day)} {_month(d, r, short=True)}. {d.year}",
        lambda d, r: f"{_month(d, r)} the {ordinal(d.day)}, {d.year}",
        lambda d, r: f"{d.day} {_month(d, r)}, {d.year}",
        lambda d, r: f"{ordinal(d.day)} {_month(d, r)} '{d:%y}",
        lambda d, r: f"{d.year}, {_month(d, r)} {ordinal(d.day)}",
        lambda d, r: f"{d.year}-{_month(d, r, short=True)}-{d:%d}",
        lambda d, r: f"{DAYS[d.weekday()]} the {ordinal(d.day)} of {_month(d, r)} {d.year}",
        lambda d, r: f"{DAYS[d.weekday()]}, {d.day} {_month(d, r)} {d.year}",
        _foreign,
        _foreign,
        lambda d, r: f"the {ordinal(d.day)} of {_month(d, r)}, {d.year}",
        lambda d, r: f"{d.year} {_month(d, r, short=True)} {d.day}",
        lambda d, r: f"{DAYS[d.weekday()]} {ordinal(d.day)} {_month(d, r)} {d.year}",
    ),
    unseen=unseen_styles.DATE,
    forms={
        "YYYY-MM-DD": lambda d: d.isoformat(),
        "DD.MM.YYYY": lambda d: f"{d:%d.%m.%Y}",
        "MM/DD/YYYY": lambda d: f"{d:%m/%d/%Y}",
        "DD/MM/YYYY": lambda d: f"{d:%d/%m/%Y}",
        "YYYYMMDD": lambda d: f"{d:%Y%m%d}",
        "D Month YYYY": lambda d: f"{d.day} {MONTHS['en'][d.month - 1]} {d.year}",
        "Month D, YYYY": lambda d: f"{MONTHS['en'][d.month - 1]} {d.day}, {d.year}",
    },
)


def _clock(rng: Draw) -> str:
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"


def _half(time: tuple[int, int], rng: Draw, form: str) -> str:
    hour, minute = time
    mark = rng.choice(("am", " am", " AM", " a.m.")) if hour < 12 else rng.choice(("pm", " pm", " PM", " p.m."))
    return form.format(hour=(hour - 1) % 12 + 1, minute=minute) + mark


TIME = ValueKind(
    draw=lambda r: (r.randint(0, 23), r.choice((0, 15, 30, 45, r.randint(0, 59)))),
    seen=(
        lambda t, _: f"{t[0]:02}:{t[1]:02}",
        lambda t, _: f"{t[0]}:{t[1]:02}",
        lambda t, r: f"{t[0]:02}:{t[1]:02}:{r.randint(0, 59):02}",
        lambda t, _: f"{t[0]}h{t[1]:02}",
        lambda t, _: f"{t[0]}.{t[1]:02} Uhr",
        lambda t, r: _half(t, r, "{hour}:{minute:02}"),
        lambda t, r: _half(t, r, "{hour}:{minute:02}"),
        lambda t, r: _half(t, r, "{hour}") if t[1] == 0 else None,
        lambda t, _: {(0, 0): "midnight", (12, 0): "noon"}.get(t),
        lambda t, r: _half(t, r, "half past {hour}") if t[1] == 30 else None,
        lambda t, r: _half(t, r, "quarter past {hour}") if t[1] == 15 else None,
        lambda t, r: _half(t, r, "{hour} o'clock") if t[1] == 0 else None,
        lambda t, _: f"{t[0]} h {t[1]:02}",
        lambda t, _: f"{t[0]:02}:{t[1]:02} h",
        lambda t, _: f"{t[0]:02}:{t[1]:02} hours",
        lambda t, _: f"{t[0]:02}{t[1]:02}",
        lambda t, r: _half(t, r, "{hour}:{minute:02}").upper(),
        lambda t, _: f"{t[0]}.{t[1]:02}",
        lambda t, r: _half(t, r, "{hour}.{minute:02}"),
        lambda t, _: f"{t[0]:02}{t[1]:02} hrs",
    ),
    unseen=unseen_styles.TIME,
    forms={
        "HH:MM": lambda t: f"{t[0]:02}:{t[1]:02}",
        "HHhMM": lambda t: f"{t[0]:02}h{t[1]:02}",
        "h:MM am/pm": lambda t: f"{(t[0] - 1) % 12 + 1}:{t[1]:02} {'am' if t[0] < 12 else 'pm'}",
    },
)


def _amount(rng: Draw) -> tuple[int, str]:
    whole = rng.choice(
        (rng.randint(1, 99), rng.randint(100, 999), rng.randint(1_000, 99_999), rng.randint(10**5, 10**7))
    )
    return whole * 100 + rng.choice((0, 50, 99, rng.randint(0, 99))), rng.choice(tuple(CURRENCIES))


def _grouped(cents: int, group: str, point: str) -> str:
    return f"{cents // 100:,}".replace(",", group) + f"{point}{cents % 100:02}"


def _number(cents: int, rng: Draw) -> str:
    """Writes an amount, whole ones often without decimals."""
    group, point = rng.choice(((",", "."), (".", ","), ("", "."), ("", ","), (" ", ","), ("'", ".")))
    text = _grouped(cents, group, point)
    return text[:-3] if cents % 100 == 0 and rng.random() < 0.6 else text


AMOUNT = ValueKind(
    draw=_amount,
    seen=(
        lambda a, r: f"{_number(a[0], r)} {a[1]}",
        lambda a, r: f"{a[1]} {_number(a[0], r)}",
        lambda a, r: f"{_number(a[0], r)}{a[1]}",
        lambda a, r: f"{CURRENCIES[a[1]][0]}{_number(a[0], r)}",
        lambda a, r: f"{_number(a[0], r)} {CURRENCIES[a[1]][0]}",
        lambda a, r: f"{_number(a[0], r)}{CURRENCIES[a[1]][0]}",
        lambda a, r: f"{_number(a[0], r)} {CURRENCIES[a[1]][1]}",
        lambda a, r: f"{_number(a[0], r)} {a[1].lower()}",
        lambda a, _: f"{a[0] // 100},-- {CURRENCIES[a[1]][0]}" if a[0] % 100 == 0 else None,
        lambda a, _: f"{a[0] // 100} {CURRENCIES[a[1]][1]} and {a[0] % 100} cents" if a[0] % 100 > 9 else None,
        lambda a, r: f"{CURRENCIES[a[1]][0]} {_number(a[0], r)}",
        lambda a, r: f"{a[1]}{_number(a[0], r)}",
        lambda a, r: f"{_number(a[0], r)} ({a[1]})",
        lambda a, r: f"{_number(a[0], r)} {CURRENCIES[a[1]][1].title()}",
        lambda a, _: f"{a[0] // 100} {a[1]} {a[0] % 100:02}" if a[0] % 100 else None,
        lambda a, r: f"{CURRENCIES[a[1]][0]} {_number(a[0], r)} ({a[1]})",
        lambda a, _: f"{a[0] // 100} {CURRENCIES[a[1]][1]}, {a[0] % 100:02}/100",
    ),
    unseen=unseen_styles.AMOUNT,
    forms={
        "0.00 CUR": lambda a: f"{_grouped(a[0], '', '.')} {a[1]}",
        "CUR 0,000.00": lambda a: f"{a[1]} {_grouped(a[0], ',', '.')}",
        "0.000,00 CUR": lambda a: f"{_grouped(a[0], '.', ',')} {a[1]}",
    },
)


def _phone(rng: Draw) -> tuple[str, str]:
    """Draws a country and a national number, without the leading zero of some countries."""
    return rng.choice(tuple(COUNTRIES)), str(rng.randint(10 ** (digits := rng.randint(7, 9)), 10 ** (digits + 1) - 1))


def _spaced(number: str, rng: Draw) -> str:
    mark, size = rng.choice((" ", " ", "-", ".", "")), rng.choice((2, 3, 4))
    return mark.join(number[at : at + size] for at in range(0, len(number), size))


PHONE = ValueKind(
    draw=_phone,
    seen=(
        lambda p, r: f"+{COUNTRIES[p[0]]} {_spaced(p[1], r)}",
        lambda p, r: f"00{COUNTRIES[p[0]]} {_spaced(p[1], r)}",
        lambda p, r: f"00{COUNTRIES[p[0]]}-{_spaced(p[1], r)}",
        lambda p, r: f"+{COUNTRIES[p[0]]} (0) {_spaced(p[1], r)}",
        lambda p, r: f"+{COUNTRIES[p[0]]}/{_spaced(p[1], r)}",
        lambda p, r: f"0{_spaced(p[1], r)} ({p[0]})",
        lambda p, r: f"{p[0]}, 0{_spaced(p[1], r)}",
        lambda p, r: f"(0{p[1][:3]}) {_spaced(p[1][3:], r)}, {p[0]}",
        lambda p, _: f"+{COUNTRIES[p[0]]}{p[1]}",
        lambda p, r: f"+{COUNTRIES[p[0]]}-{p[1][:3]}-{_spaced(p[1][3:], r)}",
        lambda p, r: f"+{COUNTRIES[p[0]]} ({p[1][:3]}) {_spaced(p[1][3:], r)}",
        lambda p, r: f"00 {COUNTRIES[p[0]]} {_spaced(p[1], r)}",
        lambda p, r: f"{p[0]} +{COUNTRIES[p[0]]} {_spaced(p[1], r)}",
        lambda p, r: f"0{p[1][:3]}/{_spaced(p[1][3:], r)} in {p[0]}",
        lambda p, r: f"tel. +{COUNTRIES[p[0]]} {p[1][:2]} {_spaced(p[1][2:], r)}",
        lambda p, r: f"[{p[0]}] 0{_spaced(p[1], r)}",
        lambda p, r: f"(+{COUNTRIES[p[0]]}) {_spaced(p[1], r)}",
        lambda p, r: f"{p[0]}: 0{p[1][:3]} / {_spaced(p[1][3:], r)}",
    ),
    unseen=unseen_styles.PHONE,
    forms={
        "E.164": lambda p: f"+{COUNTRIES[p[0]]}{p[1]}",
        "00 and digits": lambda p: f"00{COUNTRIES[p[0]]}{p[1]}",
        "+CC NUMBER": lambda p: f"+{COUNTRIES[p[0]]} {p[1]}",
    },
)
KINDS = {"date": DATE, "time": TIME, "amount": AMOUNT, "phone": PHONE}

AROUND = (
    "{}", "{}", "{}", "{}", "{}", "{}", "on {}", "({})", "{}.", "it says {}", "{}, if I read it right", "- {}",
    "  {}  ", "<{}>", "{} (approved)",
    "value: {}", "> {}", "the form has {}", "was {} before", "[{}]", "\"{}\"", "{}, please", "= {}", "{} - thanks",
    "* {} *", "I think {}",
)  # fmt: skip
"""Contexts that a value may appear in."""


def make_record(rng: random.Random, *, seen: bool) -> Record:
    """Makes a record of one value, written in a style of training (`seen`) or in an unseen one."""
    kind = rng.choice((*KINDS, *UNITS))
    # Half of the values stand alone.
    around = rng.choice(AROUND if seen else ("{}",) * len(unseen_styles.AROUND) + unseen_styles.AROUND)
    if kind in UNITS:
        unit, quantity, answer = _quantity(kind, rng, seen=seen)
        return Record(f"normalize {kind}", f"Write the {kind} in {unit}: {around.format(quantity)}".strip(), answer)
    of_kind = KINDS[kind]
    form = rng.choice(tuple(of_kind.forms))
    while True:
        value = of_kind.draw(rng)
        written = rng.choice(of_kind.seen if seen else of_kind.unseen)(value, rng)
        if written is not None:
            break
    prompt = f"Write the {kind} as {form}: {around.format(written)}".strip()
    return Record(f"normalize {kind}", prompt, of_kind.forms[form](value))


def _quantity(kind: str, rng: random.Random, *, seen: bool) -> tuple[str, str, str]:
    """Returns (target unit, quantity as written, answer), with few digits and units that are not too far apart."""
    units = UNITS[kind]
    while True:
        found, asked = rng.choice(tuple(units)), rng.choice(tuple(units))
        if found == asked and rng.random() < 0.8:
            continue
        # Thousands only move the decimal point; sixties must be computed, so those numbers stay small.
        digits, decimals = rng.randint(1, 9999), rng.choice((0, 0, 1, 2))
        if kind == "duration" and {found, asked} != {"ms", "s"}:
            digits, decimals = rng.randint(1, 60), 0
        thousandths = digits * 10 ** (3 - decimals)
        answer, rest = divmod(thousandths * units[found], units[asked])
        if rest == 0 and 0 < answer < 10**9:
            break
    amount = _decimal(thousandths)
    if seen:
        if rng.random() < 0.4:
            amount = amount.replace(".", ",")
        name = UNIT_NAMES[found]
        written = rng.choice(
            (
                f"{amount} {found}", f"{amount}{found}", f"{amount} {found}", f"{amount}{found}", f"{amount} {name}",
                f"{amount}-{name[:-1]}", f"{name}: {amount}", f"{amount} [{found}]", f"{found}={amount}",
                f"{amount} {name.title()}", f"{found} {amount}", f"{amount} ({found})",
            )
        )  # fmt: skip
    else:
        styles = (style(amount, found) for style in rng.sample(unseen_styles.QUANTITY, len(unseen_styles.QUANTITY)))
        written = next(style for style in styles if style is not None)
    return asked, written, f"{_decimal(answer)} {asked}"


def _decimal(thousandths: int) -> str:
    text = f"{thousandths // 1000}.{thousandths % 1000:03}"
    return text.rstrip("0").rstrip(".")


def training_record(seed: int, index: int) -> Record:
    """Returns record `index` of the endless training stream of `seed`."""
    return make_record(random.Random(f"normalize/train/{seed}/{index}"), seen=True)


def held_out_records(count: int, *, seen: bool, seed: int = 0) -> Iterator[Record]:
    """Yields test records, in styles of training (`seen`) or in unseen ones."""
    for index in range(count):
        yield make_record(random.Random(f"normalize/test/{seen}/{seed}/{index}"), seen=seen)
