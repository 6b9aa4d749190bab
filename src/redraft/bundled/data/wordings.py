"""Writing numbers, times, amounts and phone numbers in words and groups, for the unseen styles."""

import datetime

from redraft.text.prompts.values import COUNTRIES, CURRENCIES, DAYS, MONTHS, UNIT_NAMES, UNITS

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


def month(d: datetime.date) -> str:
    return MONTHS["en"][d.month - 1]


def short_month(d: datetime.date) -> str:
    return month(d)[:3]


def weekday(d: datetime.date) -> str:
    return DAYS[d.weekday()]


def ordinal_word(n: int) -> str:
    return NTH[n - 1] if n <= 20 else "thirtieth" if n == 30 else ("twenty-" if n < 30 else "thirty-") + NTH[n % 10 - 1]


def number_word(n: int) -> str:
    return ONES[n] if n < 20 else TENS[n // 10] + ("-" + ONES[n % 10] if n % 10 else "")


def part_of_day(h: int) -> str:
    return (
        "at night"
        if h < 4 or h > 20
        else "in the morning"
        if h < 12
        else "in the afternoon"
        if h < 18
        else "in the evening"
    )


def twelve_hour(h: int) -> int:
    return h % 12 or 12


def half_of_day(t: Time, am: str, pm: str) -> str | None:
    """am/pm mark; None at exactly twelve, where '12 am'/'12 pm' is disputed"""
    return None if t[0] % 12 == 0 and t[1] == 0 else am if t[0] < 12 else pm


def hour_past(h: int) -> str:
    """the hour just gone, in words"""
    return "midnight" if h == 0 else "noon" if h == 12 else f"{ONES[twelve_hour(h)]} {part_of_day(h)}"


def hour_to(h: int) -> str:
    """the hour about to come, in words; part of day is that of the time meant"""
    return "midnight" if h == 23 else "noon" if h == 11 else f"{ONES[twelve_hour(h + 1)]} {part_of_day(h)}"


def grouped(s: str, g: str) -> str:
    out: list[str] = []
    while len(s) > 3:
        out.insert(0, s[-3:])
        s = s[:-3]
    return g.join([s, *out])


def in_lakhs(n: int) -> str:
    s = str(n)
    head, tail = s[:-3], s[-3:]
    out: list[str] = []
    while len(head) > 2:
        out.insert(0, head[-2:])
        head = head[:-2]
    return ",".join(([head] if head else []) + out + [tail])


def number(a: Amount, g: str, dec: str) -> str | None:
    """number with group mark g and decimal mark dec; None if a lone mark would be left open"""
    c, code = a
    if c < 0 or (code == "JPY" and c % 100):
        return None
    whole = grouped(str(c // 100), g)
    if code == "JPY":
        return None if g and g in ".," and whole.count(g) == 1 else whole
    return f"{whole}{dec}{c % 100:02d}"


def amount(a: Amount, g: str, dec: str, form: str) -> str | None:
    n = number(a, g, dec)
    return (
        None if n is None else form.format(n=n, c=a[1], s=SIGN[a[1]], w=NAME[a[1]] if a[0] != 100 else NAME_ONE[a[1]])
    )


def whole_amount(a: Amount, g: str, form: str) -> str | None:
    """whole amounts only; a form with ',-' or '.-' shows which mark is which"""
    return (
        None
        if a[0] < 0 or a[0] % 100
        else form.format(
            n=grouped(str(a[0] // 100), g), c=a[1], s=SIGN[a[1]], w=NAME[a[1]] if a[0] != 100 else NAME_ONE[a[1]]
        )
    )


def spoken(a: Amount) -> str:
    return f"{a[0] // 100} {(NAME_ONE if a[0] // 100 == 1 else NAME)[a[1]]}"


def cut(s: str, n: int) -> list[str]:
    """groups of n from the left; a lone last digit joins the group before"""
    out = [s[i : i + n] for i in range(0, len(s), n)]
    if len(out) > 1 and len(out[-1]) == 1:
        out[-2:] = [out[-2] + out[-1]]
    return out


def pairs(s: str) -> list[str]:
    """pairs, the odd digit first"""
    return ([s[0]] if len(s) % 2 else []) + [s[i : i + 2] for i in range(len(s) % 2, len(s), 2)]


def with_trunk(p: Phone, form: str, sep: str = " ", area: int = 2) -> str | None:
    c, s = p
    return (
        None
        if c in NO_TRUNK or s.startswith("0")
        else form.format(
            c=c, k=CALLING[c], a=s[:area], b=s[area:], g=sep.join(cut(s[area:], 3)), p=sep.join(pairs(s[area:]))
        )
    )


def unit_name(n: str, u: str, plural: bool = True) -> str:
    return UNIT[u] + ("s" if plural and n != "1" else "")


def american(name: str) -> str:
    return name.replace("litre", "liter").replace("metre", "meter").replace("tonne", "metric ton")


def with_comma(n: str) -> str | None:
    """decimal comma; None where the comma could be read as a thousands mark"""
    return n.replace(".", ",") if "." in n and len(n.split(".")[1]) in (1, 2) else None
