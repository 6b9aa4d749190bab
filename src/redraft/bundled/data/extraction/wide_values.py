"""Further formats of the extraction task's values, for training only: identifiers, dates, amounts and others."""

import random

from redraft.bundled.data.extraction.values import (
    CURRENCIES,
    LETTERS,
    MONTHS,
    Draw,
    ValueSource,
    digits,
    fill,
    ordinal,
    user,
)


def _id(_source: ValueSource, rng: random.Random) -> str:
    """Draws an identifier: groups of letters and digits, at least one of digits."""
    groups = [fill(rng.choice(("9", "99", "999", "9999", "99999", "999999")), rng)]
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        group = rng.choice(("A", "AA", "AAA", "AAAA", "99", "9999", "***", "*****"))
        groups.insert(rng.randint(0, len(groups)), fill(group, rng))
    text = rng.choice(("-", "-", "", "/", ".", "_")).join(groups)
    return rng.choice(("", "", "", "#")) + (text if rng.random() < 0.85 else text.lower())


def _date(_: ValueSource, rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1960, 2049)
    name, short, nth = MONTHS[month - 1], MONTHS[month - 1][:3], ordinal(day)
    return rng.choice(
        (
            f"{nth} {name}", f"{nth} of {name} {year}", f"{name} {nth}, {year}", f"{name} {nth}",
            f"{day:02}/{month:02}/{year}", f"{month}/{day}/{year}", f"{day:02}.{month:02}.", f"{day}.{month}.{year % 100:02}",
            f"{year}{month:02}{day:02}", f"{year}.{month:02}.{day:02}", f"{day:02}-{month:02}-{year}", f"{day:02}{short.upper()}{year}",
            f"{day} {short.upper()} {year % 100:02}", f"{short}. {day}, {year}", f"{day} {short}", f"{short} {day} '{year % 100:02}", f"{name} {year}",
            f"{year}-{short}-{day:02}", f"{day}/{month}",
        )
    )  # fmt: skip


def _time(_: ValueSource, rng: random.Random) -> str:
    hour, minute = rng.randint(1, 12), rng.randint(0, 59)
    half = rng.choice(("a.m.", "p.m."))
    return rng.choice(
        (
            f"{hour}.{minute:02} {half}", f"{hour} {half}", f"{hour + 11}.{minute:02}", f"{hour + 11:02}{minute:02}", "noon", "midnight",
            f"half past {rng.choice(('eight', 'nine', 'ten', 'two', 'six'))}", f"{hour}:{minute:02} {half}", f"{hour} o'clock",
            f"{hour + 11:02}:{minute:02} Uhr", f"{hour + 11}:{minute:02} h", f"{hour + 11:02}:{minute:02}:{rng.randint(0, 59):02}.{rng.randint(0, 999):03}",
        )
    )  # fmt: skip


def _amount(_: ValueSource, rng: random.Random) -> str:
    whole = rng.choice((rng.randint(1, 99), rng.randint(100, 9999), rng.randint(10_000, 9_999_999)))
    cents, grouped = f"{rng.randint(0, 99):02}", f"{whole:,}"
    code = rng.choice((*CURRENCIES, "NOK", "HUF", "RON", "JPY", "INR", "AUD", "CAD"))
    mark = rng.choice("€$£¥")
    return rng.choice(
        (
            f"{mark}{whole}", f"{mark} {grouped}", f"{mark}{grouped}", f"{whole}{mark}", f"{whole},{cents}{mark}", f"{whole},- {code}", f"{code} {whole}",
            f"{code} {grouped}", f"{grouped.replace(',', ' ')},{cents} {code}", f"{grouped.replace(',', chr(39))}.{cents} {code}", f"{whole}.{cents}{code}",
            f"{whole} {rng.choice(('dollars', 'pounds', 'kronor', 'francs', 'zloty', 'rupees', 'bucks', 'quid', 'yen'))}", f"{whole % 1000}k {code}",
            f"{mark}{whole % 100}.{rng.randint(1, 9)}k", f"{whole},{cents} {rng.choice(('zł', 'kr', 'Kč', 'lei', 'Ft'))}", f"-{whole}.{cents} {code}",
        )
    )  # fmt: skip


def _phone(_: ValueSource, rng: random.Random) -> str:
    groups = [digits(rng, rng.randint(2, 4)) for _ in range(rng.randint(2, 4))]
    start = rng.choice(("", "0", "+", "00", "+49 ", "(0)", "+1 "))
    return (
        start + rng.choice((" ", " ", "-", ".", "/", "")).join(groups) + rng.choice(("", "", "", " ext. 12", " x204"))
    )


def _product(source: ValueSource, rng: random.Random) -> str:
    adjective, noun = source.word("adjectives", rng), source.word("nouns", rng)
    text = rng.choice(
        (
            f"{adjective} {source.word('adjectives', rng)} {noun}", f"{noun} {fill('AA999', rng)}", f"{fill('A-99', rng)} {noun}", f"{noun} ({adjective})",
            f"{noun} set", f"{noun} and {source.word('nouns', rng)}", f"{adjective} {noun} {rng.randint(2, 90)} cm", f"{source.faker('last_name', rng)} {noun}",
            f"{noun} {rng.randint(10, 999)}", noun, f"{adjective} {noun}", f"{adjective} {noun}",
        )
    )  # fmt: skip
    return rng.choice((text, text, text.capitalize(), text.upper() if rng.random() < 0.3 else text))


def _event(source: ValueSource, rng: random.Random) -> str:
    first, last = source.word("event_first", rng), source.word("event_last", rng)
    return rng.choice(
        (
            f"{first} {last}", f"{first} {last} {rng.randint(2001, 2040)}", f"{ordinal(rng.randint(2, 60))} {first} {last}", f"{first} & {source.word('event_first', rng)} {last}",
            f"{source.faker('city', rng)} {last}", f"{last} of {first}", f"{first} {last}".lower(), last,
        )
    )  # fmt: skip


def _place(source: ValueSource, rng: random.Random) -> str:
    first, last = source.word("venue_first", rng), source.word("venue_last", rng)
    return rng.choice(
        (
            f"{first} {last}", f"{last} {rng.choice(LETTERS)}", f"{first} {source.word('venue_first', rng)} {last}", f"{source.faker('city', rng)} {last}",
            f"{last} of {first}", f"{first}'s {last}", last, f"{last} {rng.randint(1, 99)}{rng.choice('abcd')}", f"{first} {last}".lower(),
        )
    )  # fmt: skip


def _weight(_: ValueSource, rng: random.Random) -> str:
    value = rng.choice(
        (
            f"{rng.randint(1, 999)}",
            f"{rng.randint(0, 99)}.{rng.randint(0, 99):02}",
            f"{rng.randint(1, 9)},{rng.randint(1, 999):03}",
        )
    )
    return value + rng.choice(
        (" kg", "kg", " g", "g", " lb", "lb", " oz", " t", " tonnes", " kilos", " pounds", " grams", " KG")
    )


def _duration(_: ValueSource, rng: random.Random) -> str:
    number = rng.randint(1, 900)
    return rng.choice(
        (f"{number} s", f"{number}s", f"{number} sec", f"{number} seconds", f"{number % 60}m {number % 59}s", f"{number} min", f"{number} minutes", f"0.{number}s", f"{number % 24 + 1} h", f"{number}us", f"{number}.{number % 10} ms")
    )  # fmt: skip


def _account(source: ValueSource, rng: random.Random) -> str:
    name = user(source, rng)
    return rng.choice(
        (
            f"{name}.{digits(rng, 3)}",
            f"{name}-adm",
            f"svc_{name}",
            f"u{digits(rng, 5)}",
            f"{source.word('service_first', rng)}-bot",
            name.upper(),
            f"{name}x",
        )
    )


def _host(source: ValueSource, rng: random.Random) -> str:
    word = source.word("service_first", rng)
    place = rng.choice(("eu", "us", "west", "prod", "dc1", "fra", "int", "local", "lan", "cluster.internal", "k8s"))
    return rng.choice(
        (
            f"{word}{digits(rng, 2)}.{place}",
            f"{place.split('.')[0]}-{word}-{digits(rng, 1)}",
            f"{word}.{place}",
            f"{word}{digits(rng, 1)}",
            f"ip-10-{digits(rng, 2)}-{digits(rng, 1)}-{digits(rng, 2)}",
        )
    )


def _quantity(_source: ValueSource, rng: random.Random) -> str:
    return rng.choice(
        (f"{rng.randint(1, 99)},{digits(rng, 3)}", str(rng.randint(500, 99_999)), str(rng.randint(1, 99)))
    )


WIDE: dict[str, Draw] = {
    **dict.fromkeys(("order_id", "invoice_id", "ticket_id", "sku", "tracking_id"), _id),
    "date": _date,
    "time": _time,
    "amount": _amount,
    "phone": _phone,
    "product": _product,
    "event": _event,
    "place": _place,
    "weight": _weight,
    "duration": _duration,
    "user": _account,
    "host": _host,
    "quantity": _quantity,
    "level": lambda _, rng: rng.choice(("NOTICE", "Error", "Warning", "ALERT", "EMERG", "SEVERE", "Info", "debug", "fatal", "critical", "panic", "VERBOSE", "E", "W")),
    "status": lambda _, rng: str(rng.randint(100, 599)),
    "priority": lambda _, rng: rng.choice(("blocker", "minor", "major", "trivial", "P0", "P4", "sev 1", "sev-2", "LOW", "MEDIUM", "URGENT", "HIGH", "asap", "lowest", "prio 3", "immediate")),
    "service": lambda source, rng: rng.choice((source.word('service_first', rng), f"{source.word('service_first', rng)}{rng.choice(('.', '', '-'))}{source.word('service_last', rng)}", f"{source.word('service_first', rng)}-{source.word('service_first', rng)}-{source.word('service_last', rng)}")),
    "room": lambda _, rng: rng.choice((fill("9A", rng), fill("A-999", rng), fill("9.A99", rng), f"{rng.randint(1, 30)}{rng.choice('abc')}")),
    "flight": lambda _, rng: fill(rng.choice(("AA9999", "AA 99", "A9 999", "AAA999", "9A 9999")), rng),
    "doctor": lambda source, rng: f"{rng.choice(('Dr', 'Dr.', 'Prof. Dr.', 'Mr', 'Ms', 'Nurse', 'Mag.'))} {source.faker('first_name', rng)[0]}. {source.faker('last_name', rng)}",
    "salary": lambda _, rng: rng.choice((f"{rng.randint(9, 99)} EUR/h", f"{rng.randint(2, 9)},{digits(rng, 1)}00 EUR a month", f"{rng.randint(20, 200)}k USD", f"£{rng.randint(20, 99)},{digits(rng, 1)}00", f"CHF {rng.randint(60, 190)}'000", f"{rng.randint(20, 99)}-{rng.randint(20, 99)}k", f"EUR {rng.randint(20, 99)} 000")),
}  # fmt: skip
"""Field → draw, beside those of DRAW."""
