"""Ways in which people write dates, times, amounts, phone numbers and quantities, collected apart for the test set.

Whoever wrote them had not seen those that training draws (normalization.py): the common ones are in both. Every way has
one reading, and gives None for a value that it cannot write without a second one. Cents are hundredths of every
currency; yen that have some are not written. What takes a calendar to read (weeks of the year) was left out.
"""

import calendar
import datetime
import random
from collections.abc import Callable

from redraft.training.data.extraction.values import ordinal
from redraft.training.data.value_tables import COUNTRIES, CURRENCIES, DAYS, MONTHS, UNIT_NAMES, UNITS

Amount = tuple[int, str]
Phone = tuple[str, str]
Time = tuple[int, int]

SIGN = {code: sign for code, (sign, _) in CURRENCIES.items()}
NAME = {code: name for code, (_, name) in CURRENCIES.items()}
NAME_ONE = {
    "EUR": "euro",
    "USD": "dollar",
    "GBP": "pound",
    "JPY": "yen",
    "CHF": "franc",
    "PLN": "zloty",
    "SEK": "krona",
    "INR": "rupee",
    "BRL": "real",
    "CZK": "crown",
}
SUB = {
    "EUR": "cents",
    "USD": "cents",
    "GBP": "pence",
    "CHF": "centimes",
    "PLN": "groszy",
    "SEK": "ore",
    "INR": "paise",
    "BRL": "centavos",
    "CZK": "hellers",
}
SUB_ONE = {
    "EUR": "cent",
    "USD": "cent",
    "GBP": "penny",
    "CHF": "centime",
    "PLN": "grosz",
    "SEK": "ore",
    "INR": "paisa",
    "BRL": "centavo",
    "CZK": "heller",
}
CALLING = COUNTRIES
NO_TRUNK = ("Spain", "Italy", "Poland", "Portugal")  # nobody dials a trunk zero there

ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
NTH = (
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
)
ONES = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
TENS = {2: "twenty", 3: "thirty", 4: "forty", 5: "fifty"}
UNIT = {unit: name[:-1] for unit, name in UNIT_NAMES.items()}
KIND = {unit: kind for kind, units in UNITS.items() for unit in units}


def _mon(d: datetime.date) -> str:
    return MONTHS["en"][d.month - 1]


def _abb(d: datetime.date) -> str:
    return _mon(d)[:3]


def _wd(d: datetime.date) -> str:
    return DAYS[d.weekday()]


def _nth(n: int) -> str:
    return NTH[n - 1] if n <= 20 else "thirtieth" if n == 30 else ("twenty-" if n < 30 else "thirty-") + NTH[n % 10 - 1]


def _word(n: int) -> str:
    return ONES[n] if n < 20 else TENS[n // 10] + ("-" + ONES[n % 10] if n % 10 else "")


def _part(h: int) -> str:
    return (
        "at night"
        if h < 4 or h > 20
        else "in the morning"
        if h < 12
        else "in the afternoon"
        if h < 18
        else "in the evening"
    )


def _h12(h: int) -> int:
    return h % 12 or 12


def _ap(t: Time, am: str, pm: str) -> str | None:
    """am/pm mark; None at exactly twelve, where '12 am'/'12 pm' is disputed"""
    return None if t[0] % 12 == 0 and t[1] == 0 else am if t[0] < 12 else pm


def _past(h: int) -> str:
    """the hour just gone, in words"""
    return "midnight" if h == 0 else "noon" if h == 12 else f"{ONES[_h12(h)]} {_part(h)}"


def _to(h: int) -> str:
    """the hour about to come, in words; part of day is that of the time meant"""
    return "midnight" if h == 23 else "noon" if h == 11 else f"{ONES[_h12(h + 1)]} {_part(h)}"


def _group(s: str, g: str) -> str:
    out: list[str] = []
    while len(s) > 3:
        out.insert(0, s[-3:])
        s = s[:-3]
    return g.join([s, *out])


def _lakh(n: int) -> str:
    s = str(n)
    head, tail = s[:-3], s[-3:]
    out: list[str] = []
    while len(head) > 2:
        out.insert(0, head[-2:])
        head = head[:-2]
    return ",".join(([head] if head else []) + out + [tail])


def _n(a: Amount, g: str, dec: str) -> str | None:
    """number with group mark g and decimal mark dec; None if a lone mark would be left open"""
    c, code = a
    if c < 0 or (code == "JPY" and c % 100):
        return None
    whole = _group(str(c // 100), g)
    if code == "JPY":
        return None if g and g in ".," and whole.count(g) == 1 else whole
    return f"{whole}{dec}{c % 100:02d}"


def _f(a: Amount, g: str, dec: str, form: str) -> str | None:
    n = _n(a, g, dec)
    return (
        None if n is None else form.format(n=n, c=a[1], s=SIGN[a[1]], w=NAME[a[1]] if a[0] != 100 else NAME_ONE[a[1]])
    )


def _whole(a: Amount, g: str, form: str) -> str | None:
    """whole amounts only; a form with ',-' or '.-' shows which mark is which"""
    return (
        None
        if a[0] < 0 or a[0] % 100
        else form.format(
            n=_group(str(a[0] // 100), g), c=a[1], s=SIGN[a[1]], w=NAME[a[1]] if a[0] != 100 else NAME_ONE[a[1]]
        )
    )


def _spoken(a: Amount) -> str:
    return f"{a[0] // 100} {(NAME_ONE if a[0] // 100 == 1 else NAME)[a[1]]}"


def _cut(s: str, n: int) -> list[str]:
    """groups of n from the left; a lone last digit joins the group before"""
    out = [s[i : i + n] for i in range(0, len(s), n)]
    if len(out) > 1 and len(out[-1]) == 1:
        out[-2:] = [out[-2] + out[-1]]
    return out


def _pairs(s: str) -> list[str]:
    """pairs, the odd digit first"""
    return ([s[0]] if len(s) % 2 else []) + [s[i : i + 2] for i in range(len(s) % 2, len(s), 2)]


def _trunk(p: Phone, form: str, sep: str = " ", area: int = 2) -> str | None:
    c, s = p
    return (
        None
        if c in NO_TRUNK or s.startswith("0")
        else form.format(
            c=c, k=CALLING[c], a=s[:area], b=s[area:], g=sep.join(_cut(s[area:], 3)), p=sep.join(_pairs(s[area:]))
        )
    )


def _full(n: str, u: str, plural: bool = True) -> str:
    return UNIT[u] + ("s" if plural and n != "1" else "")


def _us(name: str) -> str:
    return name.replace("litre", "liter").replace("metre", "meter").replace("tonne", "metric ton")


def _comma(n: str) -> str | None:
    """decimal comma; None where the comma could be read as a thousands mark"""
    return n.replace(".", ",") if "." in n and len(n.split(".")[1]) in (1, 2) else None


DATE: tuple[Callable[[datetime.date, random.Random], str | None], ...] = (
    lambda d, _: d.isoformat(),
    lambda d, _: f"{d.year}/{d.month:02d}/{d.day:02d}",
    lambda d, _: f"{d.year}. {d.month:02d}. {d.day:02d}.",
    lambda d, _: f"DTSTART;VALUE=DATE:{d.year}{d.month:02d}{d.day:02d}",
    lambda d, _: f"{_mon(d)} {d.day}, {d.year}",
    lambda d, _: f"{d.day} {_mon(d)} {d.year}",
    lambda d, _: f"{_wd(d)} the {ordinal(d.day)} of {_mon(d)}, {d.year}",
    lambda d, _: f"{_wd(d)[:3]}, {d.day:02d} {_abb(d)} {d.year}",
    lambda d, _: f"{_wd(d)[:3]} {_abb(d)} {d.day:2d} {d.year}",
    lambda d, _: f"{d.day:02d}-{_abb(d).upper()}-{d.year}",
    lambda d, _: f"{d.day:02d}{_abb(d).upper()}{d.year}",
    lambda d, _: f"[{d.day:02d}/{_abb(d)}/{d.year}]",
    lambda d, _: f"{_abb(d)}-{d.day:02d}-{d.year}",
    lambda d, _: f"{d.year} {_mon(d)} {d.day}",
    lambda d, _: f"{d.day}. {_mon(d)} {d.year}",
    lambda d, _: f"{d.day} {ROMAN[d.month - 1]} {d.year}",
    lambda d, _: f"{d.day}.{ROMAN[d.month - 1]}.{d.year}",
    lambda d, _: f"{d.day} {_abb(d)} '{d.year % 100:02d}",
    lambda d, _: f"{_mon(d)} {ordinal(d.day)}, ’{d.year % 100:02d}",
    lambda d, _: f"{d.day:02d}/{d.month:02d}/{d.year}" if d.day > 12 else None,
    lambda d, _: f"{d.month}/{d.day}/{d.year}" if d.day > 12 else None,
    lambda d, _: f"{d.day}.{d.month}.{d.year}" if d.day > 12 else None,
    lambda d, _: f"{d.day:02d}-{d.month:02d}-'{d.year % 100:02d}" if d.day > 12 else None,
    lambda d, _: f"{d.day:02d}/{d.month:02d}/{d.year} (DD/MM/YYYY)",
    lambda d, _: f"(mm/dd/yyyy) {d.month:02d}/{d.day:02d}/{d.year}",
    lambda d, _: f"Day: {d.day:02d}  Month: {d.month:02d}  Year: {d.year}",
    lambda d, _: f"this {_nth(d.day)} day of {_mon(d)}, {d.year}",
    lambda d, _: f"{_mon(d)} the {_nth(d.day)}, {d.year}",
    lambda d, _: f"the last day of {_mon(d)} {d.year}" if d.day == calendar.monthrange(d.year, d.month)[1] else None,
    lambda d, _: f"{_mon(d).upper()} {d.day:02d} {d.year}",
)

TIME: tuple[Callable[[Time, random.Random], str | None], ...] = (
    lambda t, _: f"{t[0]:02d}:{t[1]:02d}",
    lambda t, _: f"{t[0]:02d}:{t[1]:02d}:00",
    lambda t, _: f"{t[0]}h{t[1]:02d}",
    lambda t, _: f"{t[0]} h" if t[1] == 0 and t[0] > 12 else f"at {t[0]} h {t[1]:02d}",
    lambda t, _: f"{t[0]:02d}{t[1]:02d} hrs",
    lambda t, _: f"at {t[0]:02d}.{t[1]:02d} hours",
    lambda t, _: f"kl. {t[0]:02d}.{t[1]:02d}",
    lambda t, _: f"{t[0]}:{t[1]:02d} Uhr",
    lambda t, _: f"{t[0]} Uhr {t[1]:02d}" if t[1] else f"{t[0]} Uhr",
    lambda t, _: f"{_h12(t[0])}:{t[1]:02d} {_ap(t, 'am', 'pm')}" if _ap(t, "am", "pm") else None,
    lambda t, _: f"{_h12(t[0]):02d}:{t[1]:02d}{_ap(t, 'AM', 'PM')}" if _ap(t, "AM", "PM") else None,
    lambda t, _: f"{_h12(t[0])}.{t[1]:02d} {_ap(t, 'a.m.', 'p.m.')}" if _ap(t, "a", "p") else None,
    lambda t, _: f"{_h12(t[0])}{_ap(t, 'am', 'pm')} sharp" if t[1] == 0 and _ap(t, "a", "p") else None,
    lambda t, _: f"{_h12(t[0])}:{t[1]:02d}{_ap(t, 'a', 'p')}" if _ap(t, "a", "p") else None,
    lambda t, _: f"{_h12(t[0])}:{t[1]:02d} {_part(t[0])}" if t[0] % 12 else None,
    lambda t, _: (
        {0: "midnight", 12: "noon"}.get(t[0], f"{ONES[_h12(t[0])]} o'clock {_part(t[0])}") if t[1] == 0 else None
    ),
    lambda t, _: (
        {0: "12 midnight", 12: "12 noon"}.get(t[0], f"{_h12(t[0])} o’clock {_part(t[0])}") if t[1] == 0 else None
    ),
    lambda t, _: (
        f"half past {_past(t[0])}"
        if t[1] == 30
        else f"a quarter past {_past(t[0])}"
        if t[1] == 15
        else f"a quarter to {_to(t[0])}"
        if t[1] == 45
        else None
    ),
    lambda t, _: (
        None
        if t[1] in (0, 15, 30, 45)
        else f"{_word(t[1])} minute{'s' * (t[1] > 1)} past {_past(t[0])}"
        if t[1] < 30
        else f"{_word(60 - t[1])} minute{'s' * (t[1] < 59)} to {_to(t[0])}"
    ),
    lambda t, _: (
        f"{60 - t[1]} min before {_to(t[0])}" if t[1] > 30 else f"{t[1]} min after {_past(t[0])}" if t[1] else None
    ),
    lambda t, _: f"{_ap(t, 'AM', 'PM')} {_h12(t[0])}:{t[1]:02d}" if _ap(t, "a", "p") else None,
    lambda t, _: f"T{t[0]:02d}:{t[1]:02d}",
    lambda t, _: f"hour={t[0]} minute={t[1]}",
    lambda t, _: f"{'zero ' * (t[0] < 10)}{_word(t[0])} hundred hours" if t[1] == 0 and t[0] else None,
    lambda t, _: f"{t[0]:02d}:{t[1]:02d} h",
)

AMOUNT: tuple[Callable[[Amount, random.Random], str | None], ...] = (
    lambda a, _: _f(a, "", ".", "{s}{n}"),
    lambda a, _: _f(a, ",", ".", "{c} {n}"),
    lambda a, _: _f(a, ",", ".", "{s}{n}"),
    lambda a, _: _f(a, ".", ",", "{n} {s}"),
    lambda a, _: _f(a, ".", ",", "{s} {n}"),
    lambda a, _: _f(a, " ", ",", "{n} {s}"),
    lambda a, _: _f(a, "\u202f", ",", "{n} {c}"),
    lambda a, _: _f(a, "'", ".", "{c} {n}"),
    lambda a, _: _f(a, "’", ".", "{n} {s}"),
    lambda a, _: _f(a, " ", ".", "{n} {c}"),
    lambda a, _: _f(a, "", ",", "{c}{n}"),
    lambda a, _: _f(a, "", ".", "{n} {w}"),
    lambda a, _: _f(a, "", ",", "{n}{s}"),
    lambda a, _: _f(a, ",", ".", "{c} ***{n}"),
    lambda a, _: _f(a, "", ".", '{{"amount": "{n}", "currency": "{c}"}}'),
    lambda a, _: _f(a, "", ".", "currency={c};amount={n}"),
    lambda a, _: _f(a, " ", ",", "{s} {n} ({c})"),
    lambda a, _: _f(a, ",", ".", "({c}) {s}{n}"),
    lambda a, _: _whole(a, "", "{n} {w}"),
    lambda a, _: _whole(a, " ", "{n} {w}"),
    lambda a, _: _whole(a, " ", "{n} {s}"),
    lambda a, _: _whole(a, ".", "{s} {n},-"),
    lambda a, _: _whole(a, ".", "{n},– {c}"),
    lambda a, _: _whole(a, "'", "{c} {n}.–"),
    lambda a, _: _whole(a, "", "{s}{n}/-") if a[1] == "INR" and a[0] % 100 == 0 else None,
    lambda a, _: _whole(a, " ", "{n}:- SEK") if a[1] == "SEK" and a[0] % 100 == 0 else None,
    lambda a, _: _f(a, " ", ":", "{n} {s}") if a[1] == "SEK" else None,
    lambda a, _: f"₹{_lakh(a[0] // 100)}.{a[0] % 100:02d}" if a[1] == "INR" else None,
    lambda a, _: f"{a[0] // 100}€{a[0] % 100:02d}" if a[1] == "EUR" else None,
    lambda a, _: (
        f"{_spoken(a)} and {a[0] % 100} {(SUB_ONE if a[0] % 100 == 1 else SUB)[a[1]]}"
        if a[1] in SUB and a[0] >= 100 and a[0] % 100
        else None
    ),
    lambda a, _: f"{_spoken(a)} {a[0] % 100:02d}" if a[1] in SUB and a[0] >= 100 and a[0] % 100 else None,
    lambda a, _: f"{a[0]} {SUB[a[1]]} ({a[1]})" if a[1] in SUB and a[0] > 1 else None,
    lambda a, _: (
        f"US${_n(a, ',', '.')}"
        if a[1] == "USD"
        else f"{_n(a, ',', '.')} pounds sterling"
        if a[1] == "GBP" and a[0] != 100
        else None
    ),
    lambda a, _: f"{a[1]} {a[0] // 100} {a[0] % 100:02d}/100" if a[1] in SUB else None,
)

PHONE: tuple[Callable[[Phone, random.Random], str | None], ...] = (
    lambda p, _: f"+{CALLING[p[0]]}{p[1]}",
    lambda p, _: f"+{CALLING[p[0]]} {p[1][:2]} {p[1][2:]}",
    lambda p, _: f"+{CALLING[p[0]]} {' '.join(_pairs(p[1]))}",
    lambda p, _: f"+{CALLING[p[0]]} {' '.join(_cut(p[1], 3))}",
    lambda p, _: f"+{CALLING[p[0]]}-{'-'.join(_cut(p[1], 3))}",
    lambda p, _: f"+{CALLING[p[0]]}.{p[1]}",
    lambda p, _: f"+{CALLING[p[0]]}.{'.'.join(_pairs(p[1]))}",
    lambda p, _: f"(+{CALLING[p[0]]}) {p[1][:3]} {p[1][3:]}",
    lambda p, _: f"00{CALLING[p[0]]}{p[1]}",
    lambda p, _: f"00 {CALLING[p[0]]} {' '.join(_cut(p[1], 3))}",
    lambda p, _: f"00{CALLING[p[0]]}-{p[1][:2]}-{p[1][2:]}",
    lambda p, _: f"+{CALLING[p[0]]} ({p[1][:2]}) {p[1][2:5]}-{p[1][5:]}",
    lambda p, _: f"+{CALLING[p[0]]}/{p[1][:3]}/{p[1][3:]}",
    lambda p, _: f"++{CALLING[p[0]]} {p[1][:3]} {p[1][3:]}",
    lambda p, _: f"tel:+{CALLING[p[0]]}-{p[1][:2]}-{p[1][2:]}",
    lambda p, _: f"TEL;TYPE=cell:+{CALLING[p[0]]}{p[1]}",
    lambda p, _: f"https://wa.me/{CALLING[p[0]]}{p[1]}",
    lambda p, _: f"+ {CALLING[p[0]]} – {p[1][:3]} – {p[1][3:]}",
    lambda p, _: f"country code: {CALLING[p[0]]}, number: {p[1]}",
    lambda p, _: f"+{CALLING[p[0]]}\u00a0{chr(160).join(_pairs(p[1]))}",
    lambda p, _: f"Phone ({p[0]}, +{CALLING[p[0]]}): {' '.join(_cut(p[1], 3))}",
    lambda p, _: _trunk(p, "+{k} (0){a} {g}"),
    lambda p, _: _trunk(p, "+{k}(0){a}-{b}", area=3),
    lambda p, _: _trunk(p, "00{k} (0) {a} {p}"),
    lambda p, _: _trunk(p, "0{a} {g} ({c})"),
    lambda p, _: _trunk(p, "{c}, 0{a}/{b}"),
    lambda p, _: _trunk(p, "(0{a}) {b}, {c}", area=3),
    lambda p, _: _trunk(p, "call 0{a}-{p} in {c}"),
    lambda p, _: _trunk(p, "{c}: 0{a}{b}"),
    lambda p, _: _trunk(p, "0{a}.{p} (from within {c})", sep="."),
)

QUANTITY: tuple[Callable[[str, str], str | None], ...] = (
    lambda n, u: f"{n} {u}",
    lambda n, u: None if u in ("m", "l") else f"{n}{u}",
    lambda n, u: f"{n}\u00a0{u}",
    lambda n, u: f"{_comma(n)} {u}" if _comma(n) else None,
    lambda n, u: f"{n} {_full(n, u)}",
    lambda n, u: f"{n} {_us(_full(n, u))}",
    lambda n, u: f"a {n}-{_full(n, u, False)} one" if n[:1] != "8" and not n.startswith(("11", "18")) else None,
    lambda n, u: f"{u} {n}" if len(u) > 1 and u != "min" else None,
    lambda n, u: f"{n} [{u}]" if u != "min" else None,
    lambda n, u: f"{n} ({_full(n, u)})",
    lambda n, u: f"approx. {n} {u}",
    lambda n, u: f"ca. {n} {_full(n, u)}",
    lambda n, u: None if u in ("m", "l") else f"~{n}{u}",
    lambda n, u: f"a total of {n} {_full(n, u)}",
    lambda n, u: f"{n} {u} net" if KIND[u] in ("weight", "volume") else f"{n} {u} in total",
    lambda n, u: f"net {KIND[u]}: {n} {u}" if KIND[u] in ("weight", "volume") else f"{KIND[u]}: {n} {u}",
    lambda n, u: f"{KIND[u]} ({u}): {n}" if u != "min" else None,
    lambda n, u: f"{KIND[u].capitalize()} in {_full('', u)}: {n}",
    lambda n, u: f"{KIND[u]}_{u}={n}" if u != "min" else None,
    lambda n, u: f'{{"value": {n}, "unit": "{u}"}}',
    lambda n, u: f"| {n} | {u} |" if u != "min" else None,
    lambda n, u: f"{KIND[u]}={n}{u}" if u != "l" else None,
    lambda n, u: f"{n} {_full(n, u).upper()}",
    lambda n, u: (
        f"{n[1:]} {u}" if n.startswith("0.") and len(n) < 5 else f"{n} full {_full(n, u)}" if "." not in n else None
    ),
    lambda n, u: f"{_full('', u).capitalize()}: {n}",
)

AROUND = (
    "as agreed: {}",
    "Please note {} and confirm.",
    "Re: {}",
    "we have {} on file, is that right?",
    "FYI - {} (see attachment)",
    "Hi Anna, it is {}, thanks!",
    "> {}",
    "According to the form it should be {}.",
    "* {} *",
    '"{}" is what she wrote',
    "NOTE: {} [checked]",
    "sorry for the mix-up, I meant {}",
)
