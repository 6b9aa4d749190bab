"""Ways of writing dates, times, amounts, phone numbers and quantities, collected separately for the test set.

Their author had not seen the styles of training (normalization.py), so common ones are in both. Every style has one
reading and returns None for a value that it cannot write without a second one. Cents are hundredths of every currency;
yen with cents are not written. Styles that need a calendar to read (weeks of the year) are left out.
"""

import calendar
import datetime
import random
from collections.abc import Callable

from redraft.bundled.data import wordings as say
from redraft.bundled.data.extraction.values import ordinal

DATE: tuple[Callable[[datetime.date, random.Random], str | None], ...] = (
    lambda d, _: d.isoformat(),
    lambda d, _: f"{d.year}/{d.month:02d}/{d.day:02d}",
    lambda d, _: f"{d.year}. {d.month:02d}. {d.day:02d}.",
    lambda d, _: f"DTSTART;VALUE=DATE:{d.year}{d.month:02d}{d.day:02d}",
    lambda d, _: f"{say.month(d)} {d.day}, {d.year}",
    lambda d, _: f"{d.day} {say.month(d)} {d.year}",
    lambda d, _: f"{say.weekday(d)} the {ordinal(d.day)} of {say.month(d)}, {d.year}",
    lambda d, _: f"{say.weekday(d)[:3]}, {d.day:02d} {say.short_month(d)} {d.year}",
    lambda d, _: f"{say.weekday(d)[:3]} {say.short_month(d)} {d.day:2d} {d.year}",
    lambda d, _: f"{d.day:02d}-{say.short_month(d).upper()}-{d.year}",
    lambda d, _: f"{d.day:02d}{say.short_month(d).upper()}{d.year}",
    lambda d, _: f"[{d.day:02d}/{say.short_month(d)}/{d.year}]",
    lambda d, _: f"{say.short_month(d)}-{d.day:02d}-{d.year}",
    lambda d, _: f"{d.year} {say.month(d)} {d.day}",
    lambda d, _: f"{d.day}. {say.month(d)} {d.year}",
    lambda d, _: f"{d.day} {say.ROMAN[d.month - 1]} {d.year}",
    lambda d, _: f"{d.day}.{say.ROMAN[d.month - 1]}.{d.year}",
    lambda d, _: f"{d.day} {say.short_month(d)} '{d.year % 100:02d}",
    lambda d, _: f"{say.month(d)} {ordinal(d.day)}, ’{d.year % 100:02d}",
    lambda d, _: f"{d.day:02d}/{d.month:02d}/{d.year}" if d.day > 12 else None,
    lambda d, _: f"{d.month}/{d.day}/{d.year}" if d.day > 12 else None,
    lambda d, _: f"{d.day}.{d.month}.{d.year}" if d.day > 12 else None,
    lambda d, _: f"{d.day:02d}-{d.month:02d}-'{d.year % 100:02d}" if d.day > 12 else None,
    lambda d, _: f"{d.day:02d}/{d.month:02d}/{d.year} (DD/MM/YYYY)",
    lambda d, _: f"(mm/dd/yyyy) {d.month:02d}/{d.day:02d}/{d.year}",
    lambda d, _: f"Day: {d.day:02d}  Month: {d.month:02d}  Year: {d.year}",
    lambda d, _: f"this {say.ordinal_word(d.day)} day of {say.month(d)}, {d.year}",
    lambda d, _: f"{say.month(d)} the {say.ordinal_word(d.day)}, {d.year}",
    lambda d, _: (
        f"the last day of {say.month(d)} {d.year}" if d.day == calendar.monthrange(d.year, d.month)[1] else None
    ),
    lambda d, _: f"{say.month(d).upper()} {d.day:02d} {d.year}",
)

TIME: tuple[Callable[[say.Time, random.Random], str | None], ...] = (
    lambda t, _: f"{t[0]:02d}:{t[1]:02d}",
    lambda t, _: f"{t[0]:02d}:{t[1]:02d}:00",
    lambda t, _: f"{t[0]}h{t[1]:02d}",
    lambda t, _: f"{t[0]} h" if t[1] == 0 and t[0] > 12 else f"at {t[0]} h {t[1]:02d}",
    lambda t, _: f"{t[0]:02d}{t[1]:02d} hrs",
    lambda t, _: f"at {t[0]:02d}.{t[1]:02d} hours",
    lambda t, _: f"kl. {t[0]:02d}.{t[1]:02d}",
    lambda t, _: f"{t[0]}:{t[1]:02d} Uhr",
    lambda t, _: f"{t[0]} Uhr {t[1]:02d}" if t[1] else f"{t[0]} Uhr",
    lambda t, _: (
        f"{say.twelve_hour(t[0])}:{t[1]:02d} {say.half_of_day(t, 'am', 'pm')}"
        if say.half_of_day(t, "am", "pm")
        else None
    ),
    lambda t, _: (
        f"{say.twelve_hour(t[0]):02d}:{t[1]:02d}{say.half_of_day(t, 'AM', 'PM')}"
        if say.half_of_day(t, "AM", "PM")
        else None
    ),
    lambda t, _: (
        f"{say.twelve_hour(t[0])}.{t[1]:02d} {say.half_of_day(t, 'a.m.', 'p.m.')}"
        if say.half_of_day(t, "a", "p")
        else None
    ),
    lambda t, _: (
        f"{say.twelve_hour(t[0])}{say.half_of_day(t, 'am', 'pm')} sharp"
        if t[1] == 0 and say.half_of_day(t, "a", "p")
        else None
    ),
    lambda t, _: (
        f"{say.twelve_hour(t[0])}:{t[1]:02d}{say.half_of_day(t, 'a', 'p')}" if say.half_of_day(t, "a", "p") else None
    ),
    lambda t, _: f"{say.twelve_hour(t[0])}:{t[1]:02d} {say.part_of_day(t[0])}" if t[0] % 12 else None,
    lambda t, _: (
        {0: "midnight", 12: "noon"}.get(t[0], f"{say.ONES[say.twelve_hour(t[0])]} o'clock {say.part_of_day(t[0])}")
        if t[1] == 0
        else None
    ),
    lambda t, _: (
        {0: "12 midnight", 12: "12 noon"}.get(t[0], f"{say.twelve_hour(t[0])} o’clock {say.part_of_day(t[0])}")
        if t[1] == 0
        else None
    ),
    lambda t, _: (
        f"half past {say.hour_past(t[0])}"
        if t[1] == 30
        else f"a quarter past {say.hour_past(t[0])}"
        if t[1] == 15
        else f"a quarter to {say.hour_to(t[0])}"
        if t[1] == 45
        else None
    ),
    lambda t, _: (
        None
        if t[1] in (0, 15, 30, 45)
        else f"{say.number_word(t[1])} minute{'s' * (t[1] > 1)} past {say.hour_past(t[0])}"
        if t[1] < 30
        else f"{say.number_word(60 - t[1])} minute{'s' * (t[1] < 59)} to {say.hour_to(t[0])}"
    ),
    lambda t, _: (
        f"{60 - t[1]} min before {say.hour_to(t[0])}"
        if t[1] > 30
        else f"{t[1]} min after {say.hour_past(t[0])}"
        if t[1]
        else None
    ),
    lambda t, _: (
        f"{say.half_of_day(t, 'AM', 'PM')} {say.twelve_hour(t[0])}:{t[1]:02d}" if say.half_of_day(t, "a", "p") else None
    ),
    lambda t, _: f"T{t[0]:02d}:{t[1]:02d}",
    lambda t, _: f"hour={t[0]} minute={t[1]}",
    lambda t, _: f"{'zero ' * (t[0] < 10)}{say.number_word(t[0])} hundred hours" if t[1] == 0 and t[0] else None,
    lambda t, _: f"{t[0]:02d}:{t[1]:02d} h",
)

AMOUNT: tuple[Callable[[say.Amount, random.Random], str | None], ...] = (
    lambda a, _: say.amount(a, "", ".", "{s}{n}"),
    lambda a, _: say.amount(a, ",", ".", "{c} {n}"),
    lambda a, _: say.amount(a, ",", ".", "{s}{n}"),
    lambda a, _: say.amount(a, ".", ",", "{n} {s}"),
    lambda a, _: say.amount(a, ".", ",", "{s} {n}"),
    lambda a, _: say.amount(a, " ", ",", "{n} {s}"),
    lambda a, _: say.amount(a, "\u202f", ",", "{n} {c}"),
    lambda a, _: say.amount(a, "'", ".", "{c} {n}"),
    lambda a, _: say.amount(a, "’", ".", "{n} {s}"),
    lambda a, _: say.amount(a, " ", ".", "{n} {c}"),
    lambda a, _: say.amount(a, "", ",", "{c}{n}"),
    lambda a, _: say.amount(a, "", ".", "{n} {w}"),
    lambda a, _: say.amount(a, "", ",", "{n}{s}"),
    lambda a, _: say.amount(a, ",", ".", "{c} ***{n}"),
    lambda a, _: say.amount(a, "", ".", '{{"amount": "{n}", "currency": "{c}"}}'),
    lambda a, _: say.amount(a, "", ".", "currency={c};amount={n}"),
    lambda a, _: say.amount(a, " ", ",", "{s} {n} ({c})"),
    lambda a, _: say.amount(a, ",", ".", "({c}) {s}{n}"),
    lambda a, _: say.whole_amount(a, "", "{n} {w}"),
    lambda a, _: say.whole_amount(a, " ", "{n} {w}"),
    lambda a, _: say.whole_amount(a, " ", "{n} {s}"),
    lambda a, _: say.whole_amount(a, ".", "{s} {n},-"),
    lambda a, _: say.whole_amount(a, ".", "{n},– {c}"),
    lambda a, _: say.whole_amount(a, "'", "{c} {n}.–"),
    lambda a, _: say.whole_amount(a, "", "{s}{n}/-") if a[1] == "INR" and a[0] % 100 == 0 else None,
    lambda a, _: say.whole_amount(a, " ", "{n}:- SEK") if a[1] == "SEK" and a[0] % 100 == 0 else None,
    lambda a, _: say.amount(a, " ", ":", "{n} {s}") if a[1] == "SEK" else None,
    lambda a, _: f"₹{say.in_lakhs(a[0] // 100)}.{a[0] % 100:02d}" if a[1] == "INR" else None,
    lambda a, _: f"{a[0] // 100}€{a[0] % 100:02d}" if a[1] == "EUR" else None,
    lambda a, _: (
        f"{say.spoken(a)} and {a[0] % 100} {(say.SUB_ONE if a[0] % 100 == 1 else say.SUB)[a[1]]}"
        if a[1] in say.SUB and a[0] >= 100 and a[0] % 100
        else None
    ),
    lambda a, _: f"{say.spoken(a)} {a[0] % 100:02d}" if a[1] in say.SUB and a[0] >= 100 and a[0] % 100 else None,
    lambda a, _: f"{a[0]} {say.SUB[a[1]]} ({a[1]})" if a[1] in say.SUB and a[0] > 1 else None,
    lambda a, _: (
        f"US${say.number(a, ',', '.')}"
        if a[1] == "USD"
        else f"{say.number(a, ',', '.')} pounds sterling"
        if a[1] == "GBP" and a[0] != 100
        else None
    ),
    lambda a, _: f"{a[1]} {a[0] // 100} {a[0] % 100:02d}/100" if a[1] in say.SUB else None,
)

PHONE: tuple[Callable[[say.Phone, random.Random], str | None], ...] = (
    lambda p, _: f"+{say.CALLING[p[0]]}{p[1]}",
    lambda p, _: f"+{say.CALLING[p[0]]} {p[1][:2]} {p[1][2:]}",
    lambda p, _: f"+{say.CALLING[p[0]]} {' '.join(say.pairs(p[1]))}",
    lambda p, _: f"+{say.CALLING[p[0]]} {' '.join(say.cut(p[1], 3))}",
    lambda p, _: f"+{say.CALLING[p[0]]}-{'-'.join(say.cut(p[1], 3))}",
    lambda p, _: f"+{say.CALLING[p[0]]}.{p[1]}",
    lambda p, _: f"+{say.CALLING[p[0]]}.{'.'.join(say.pairs(p[1]))}",
    lambda p, _: f"(+{say.CALLING[p[0]]}) {p[1][:3]} {p[1][3:]}",
    lambda p, _: f"00{say.CALLING[p[0]]}{p[1]}",
    lambda p, _: f"00 {say.CALLING[p[0]]} {' '.join(say.cut(p[1], 3))}",
    lambda p, _: f"00{say.CALLING[p[0]]}-{p[1][:2]}-{p[1][2:]}",
    lambda p, _: f"+{say.CALLING[p[0]]} ({p[1][:2]}) {p[1][2:5]}-{p[1][5:]}",
    lambda p, _: f"+{say.CALLING[p[0]]}/{p[1][:3]}/{p[1][3:]}",
    lambda p, _: f"++{say.CALLING[p[0]]} {p[1][:3]} {p[1][3:]}",
    lambda p, _: f"tel:+{say.CALLING[p[0]]}-{p[1][:2]}-{p[1][2:]}",
    lambda p, _: f"TEL;TYPE=cell:+{say.CALLING[p[0]]}{p[1]}",
    lambda p, _: f"https://wa.me/{say.CALLING[p[0]]}{p[1]}",
    lambda p, _: f"+ {say.CALLING[p[0]]} – {p[1][:3]} – {p[1][3:]}",
    lambda p, _: f"country code: {say.CALLING[p[0]]}, number: {p[1]}",
    lambda p, _: f"+{say.CALLING[p[0]]}\u00a0{chr(160).join(say.pairs(p[1]))}",
    lambda p, _: f"Phone ({p[0]}, +{say.CALLING[p[0]]}): {' '.join(say.cut(p[1], 3))}",
    lambda p, _: say.with_trunk(p, "+{k} (0){a} {g}"),
    lambda p, _: say.with_trunk(p, "+{k}(0){a}-{b}", area=3),
    lambda p, _: say.with_trunk(p, "00{k} (0) {a} {p}"),
    lambda p, _: say.with_trunk(p, "0{a} {g} ({c})"),
    lambda p, _: say.with_trunk(p, "{c}, 0{a}/{b}"),
    lambda p, _: say.with_trunk(p, "(0{a}) {b}, {c}", area=3),
    lambda p, _: say.with_trunk(p, "call 0{a}-{p} in {c}"),
    lambda p, _: say.with_trunk(p, "{c}: 0{a}{b}"),
    lambda p, _: say.with_trunk(p, "0{a}.{p} (from within {c})", sep="."),
)

QUANTITY: tuple[Callable[[str, str], str | None], ...] = (
    lambda n, u: f"{n} {u}",
    lambda n, u: None if u in ("m", "l") else f"{n}{u}",
    lambda n, u: f"{n}\u00a0{u}",
    lambda n, u: f"{say.with_comma(n)} {u}" if say.with_comma(n) else None,
    lambda n, u: f"{n} {say.unit_name(n, u)}",
    lambda n, u: f"{n} {say.american(say.unit_name(n, u))}",
    lambda n, u: f"a {n}-{say.unit_name(n, u, False)} one" if n[:1] != "8" and not n.startswith(("11", "18")) else None,
    lambda n, u: f"{u} {n}" if len(u) > 1 and u != "min" else None,
    lambda n, u: f"{n} [{u}]" if u != "min" else None,
    lambda n, u: f"{n} ({say.unit_name(n, u)})",
    lambda n, u: f"approx. {n} {u}",
    lambda n, u: f"ca. {n} {say.unit_name(n, u)}",
    lambda n, u: None if u in ("m", "l") else f"~{n}{u}",
    lambda n, u: f"a total of {n} {say.unit_name(n, u)}",
    lambda n, u: f"{n} {u} net" if say.KIND[u] in ("weight", "volume") else f"{n} {u} in total",
    lambda n, u: f"net {say.KIND[u]}: {n} {u}" if say.KIND[u] in ("weight", "volume") else f"{say.KIND[u]}: {n} {u}",
    lambda n, u: f"{say.KIND[u]} ({u}): {n}" if u != "min" else None,
    lambda n, u: f"{say.KIND[u].capitalize()} in {say.unit_name('', u)}: {n}",
    lambda n, u: f"{say.KIND[u]}_{u}={n}" if u != "min" else None,
    lambda n, u: f'{{"value": {n}, "unit": "{u}"}}',
    lambda n, u: f"| {n} | {u} |" if u != "min" else None,
    lambda n, u: f"{say.KIND[u]}={n}{u}" if u != "l" else None,
    lambda n, u: f"{n} {say.unit_name(n, u).upper()}",
    lambda n, u: (
        f"{n[1:]} {u}"
        if n.startswith("0.") and len(n) < 5
        else f"{n} full {say.unit_name(n, u)}"
        if "." not in n
        else None
    ),
    lambda n, u: f"{say.unit_name('', u).capitalize()}: {n}",
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
