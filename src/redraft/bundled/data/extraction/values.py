"""Values of the extraction task's fields: drawn from Faker in several Latin-script locales, from word lists, and at random.

Names, places, companies, words and most other lists are split by a hash of their entries: one entry in ten is *held out*,
and training never draws it. Kinds with few values (months, units, currencies) are not split.
"""

import random
import re
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from redraft.bundled.data.extraction.tokenizer import FUNCTION_WORDS

LOCALES = (
    "en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "pt_BR", "sv_SE", "cs_CZ", "fi_FI", "da_DK",
    "tr_TR", "ro_RO",
)  # fmt: skip
MORE_WORDS = Path(__file__).parent / "more_words.txt"
DRAWS_PER_LOCALE = 400
HASH_DEPENDENT = {("city", "it_IT")}
"""Faker draws these from a set, whose order depends on Python's hash seed: other processes would draw others."""
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
ALPHANUMERIC = LETTERS + "0123456789"

ADJECTIVES = """wireless portable folding stainless ceramic cotton leather electric solar compact heavy-duty waterproof organic
vintage adjustable insulated rechargeable bamboo wooden digital ergonomic magnetic inflatable quilted thermal silent smart
recycled mini double smooth striped transparent velvet woven garden outdoor kitchen travel""".split()
NOUNS = """mouse keyboard backpack lamp kettle blender chair desk tent drill charger headphones camera notebook mug bottle
toaster umbrella jacket blanket pillow suitcase helmet bicycle scooter monitor printer router speaker microphone tripod
telescope thermometer toolbox ladder hammock grill cooler teapot skillet cutlery planter vase candle carpet curtain mirror
clock wallet belt scarf gloves boots sandals raincoat cable adapter battery projector dictionary""".split()
EVENT_FIRST = """Spring Summer Autumn Winter Annual Charity Jazz Poetry Science Robotics Alumni Harvest Harbour Midnight
Founders Neighbourhood Photography Chess Gardening Startup Climate Open-Air Baroque Street Vegan Travel Design Family""".split()
EVENT_LAST = """Concert Fair Festival Workshop Meetup Conference Gala Market Lecture Exhibition Tournament Reading Dinner
Parade Hackathon Auction Picnic Run Screening Seminar Reunion Showcase Bazaar""".split()
VENUE_FIRST = """Grand Royal Central Astoria Riverside Victoria Old New Northern Harbour Garden Crystal Lindenhof Maple
Corner Sunset Granite Orchid Falcon Amber Meridian Opal""".split()
VENUE_LAST = """Hotel Hall Theatre Library Museum Arena Pavilion Club Cafe Church Gallery Clinic Centre Stadium Warehouse
Depot Studio Court Terrace""".split()
ROLE_FIRST = """Senior Junior Lead Assistant Chief Deputy Regional Freelance Technical Head""".split()
ROLE_LAST = """Accountant|Software Engineer|Nurse|Sales Manager|Data Analyst|Project Manager|Graphic Designer|Chef|Electrician|
Translator|Office Manager|Product Owner|Researcher|Editor|Buyer|Consultant|Warehouse Clerk|Teacher|Architect|Pharmacist|
Recruiter|Controller|Mechanic|Photographer|Librarian|Tax Adviser|Network Administrator|Receptionist|Surveyor|
Paralegal""".replace("\n", "").split("|")
SERVICE_FIRST = (
    "auth billing search mail cart image report user order cache sync export login notify queue audit media".split()
)
SERVICE_LAST = "service worker api gateway db daemon proxy scheduler indexer agent".split()
PATH_WORDS = """users orders items login search upload images v1 v2 api admin reports invoices cart health status export
sessions tokens static docs files settings""".split()
CARRIERS = """DHL|UPS|FedEx|DPD|GLS|Hermes|PostNord|TNT|Royal Mail|USPS|Chronopost|Correos|Bring|Yodel|InPost|
Aramex|Blue Dart|Purolator|Evri|Colissimo""".replace("\n", "").split("|")
WORDS = {
    "adjectives": ADJECTIVES, "nouns": NOUNS, "event_first": EVENT_FIRST, "event_last": EVENT_LAST,
    "venue_first": VENUE_FIRST, "venue_last": VENUE_LAST, "role_first": ROLE_FIRST, "roles": ROLE_LAST,
    "service_first": SERVICE_FIRST, "service_last": SERVICE_LAST, "path_words": PATH_WORDS, "carriers": CARRIERS,
}  # fmt: skip
"""The lists that test records draw from; training also draws from `more_words`."""
DOCTOR_TITLES = ("Dr.", "Dr", "Prof.", "Dr. med.", "Doctor")
MONTHS = """January February March April May June July August September October November December""".split()
CURRENCIES = ("USD", "EUR", "GBP", "CHF", "PLN", "SEK", "DKK", "CZK", "BRL", "TRY")
CONSONANTS = "bcdfghjklmnprstvwxzñçø"
VOWELS = "aaeeiioouuyäöéá"
AIRLINES = "LH BA AF KL SK LO TP AZ IB TK UA AA DL OS LX AY".split()


def is_held_out(entry: str) -> bool:
    """Returns whether a list entry belongs to the tenth that training never draws."""
    return zlib.crc32(entry.encode()) % 10 == 0


@cache
def _pool(kind: str, held_out: bool) -> tuple[str, ...]:
    """Returns the distinct values of a Faker provider over all locales: the held-out tenth or the rest."""
    from faker import Faker

    found: dict[str, None] = {}
    for locale in LOCALES:
        if (kind, locale) in HASH_DEPENDENT:
            continue
        faker = Faker(locale)
        faker.seed_instance(zlib.crc32(f"{kind}/{locale}".encode()))
        draw: Callable[[], str] = getattr(faker, kind)
        found.update((draw().replace("\n", " ").strip(), None) for _ in range(DRAWS_PER_LOCALE))
    return tuple(value for value in found if is_held_out(value) == held_out and len(value) <= 40)


class ValueSource:
    """A source of values for all fields. With `held_out`, values from lists come from their held-out parts.

    `scrambled` is the share of values whose words and digits are replaced by random ones: what cannot be memorized must
    be copied. `wide` is the share drawn from longer lists than those of test records, and in further `formats`
    (field → draw): with few nouns, a model memorizes which words are products and misses the others.
    """

    def __init__(
        self,
        *,
        held_out: bool,
        scrambled: float = 0.0,
        wide: float = 0.0,
        formats: Mapping[str, "Draw"] = MappingProxyType({}),
    ) -> None:
        self.held_out = held_out
        self.scrambled = scrambled
        self.wide = wide
        self.formats = formats

    def draw(self, field: str, rng: random.Random) -> str:
        """Draws a value of `field` as written in a text; KeyError for an unknown field."""
        further = self.formats.get(field)
        draw = DRAW[field] if further is None or rng.random() >= self.wide else further
        value = draw(self, rng)
        return scramble(value, rng) if self.scrambled and rng.random() < self.scrambled else value

    def faker(self, kind: str, rng: random.Random) -> str:
        return rng.choice(_pool(kind, self.held_out))

    def word(self, name: str, rng: random.Random) -> str:
        """Draws a word from the list `name`."""
        wide = bool(self.wide) and rng.random() < self.wide
        return rng.choice(_part(name, self.held_out, wide))


@cache
def more_words() -> dict[str, tuple[str, ...]]:
    """Reads further words for training by list: `# name` headings, then words separated by spaces or bars."""
    found: dict[str, tuple[str, ...]] = {}
    for section in MORE_WORDS.read_text(encoding="utf-8").split("# ")[1:]:
        name, text = section.split("\n", 1)
        words = text.replace("|\n", "|").strip().split("|") if "|" in text else text.split()
        found[name] = tuple(dict.fromkeys(words))
    return found


@cache
def _part(name: str, held_out: bool, wide: bool) -> tuple[str, ...]:
    if wide:
        return tuple(words for words in more_words()[name] if not held_out_words() & set(words.lower().split()))
    words = tuple(WORDS[name])
    # The held-out tenth of a short list may be empty; then both sides share its values.
    return tuple(word for word in words if is_held_out(word) == held_out) or words


@cache
def held_out_words() -> frozenset[str]:
    """Returns the single words in held-out entries of all lists, in lower case."""
    entries = [entry for words in (*WORDS.values(), *more_words().values()) for entry in words if is_held_out(entry)]
    return frozenset(word.lower() for entry in entries for word in entry.split())


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def ordinal(number: int) -> str:
    """Writes an ordinal number: 1st, 2nd, 3rd, 4th …"""
    return f"{number}{'th' if 10 < number % 100 < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def fill(pattern: str, rng: random.Random) -> str:
    """Replaces each 9 with a digit, each A with a capital letter and each * with either."""
    sets = {"9": "0123456789", "A": LETTERS, "*": ALPHANUMERIC}
    return "".join(rng.choice(sets[char]) if char in sets else char for char in pattern)


def scramble(value: str, rng: random.Random) -> str:
    """Replaces words and digits with random ones; capitals, punctuation and the number of digits stay."""

    def word(found: re.Match[str]) -> str:
        old = found[0]
        new = "the"
        # The tokenizer splits function words differently after a space.
        while new in FUNCTION_WORDS:
            syllables = ""
            length = len(old) if len(old) < 3 else rng.randint(2, 8)
            while len(syllables) < length:
                syllables += rng.choice(CONSONANTS) + rng.choice(VOWELS) + rng.choice((*CONSONANTS, "", ""))
            new = syllables[:length]
        if old.isupper():
            return new.upper()
        return new.capitalize() if old[0].isupper() else new

    return re.sub(r"\d", lambda _: rng.choice("0123456789"), re.sub(r"[^\W\d_]+", word, value))


def _name(source: ValueSource, rng: random.Random) -> str:
    first, last = source.faker("first_name", rng), source.faker("last_name", rng)
    return rng.choice((f"{first} {last}",) * 8 + (f"{first[0]}. {last}", f"{first} {rng.choice(LETTERS)}. {last}"))


def _email(source: ValueSource, rng: random.Random) -> str:
    first, last = source.faker("first_name", rng).lower(), source.faker("last_name", rng).lower()
    user = rng.choice(
        (f"{first}.{last}", f"{first[0]}{last}", f"{first}", f"{last}{digits(rng, 2)}", f"{first}_{last}")
    )
    user = user.encode("ascii", "ignore").decode().replace(" ", "") or "info"
    return f"{user}@{source.faker('domain_name', rng)}"


def _date(_: ValueSource, rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1995, 2034)
    name = MONTHS[month - 1]
    return rng.choice(
        (
            f"{year}-{month:02}-{day:02}", f"{day:02}.{month:02}.{year}", f"{day}.{month}.{year}", f"{month:02}/{day:02}/{year}",
            f"{day}/{month}/{year % 100:02}", f"{day} {name} {year}", f"{name} {day}, {year}", f"{day} {name[:3]} {year}",
            f"{name[:3]} {day}", f"{day} {name}", f"{name} {day}", f"{year}/{month:02}/{day:02}", f"{day}-{name[:3]}-{year}",
            f"{day}. {name} {year}",
        )
    )  # fmt: skip


def _time(_: ValueSource, rng: random.Random) -> str:
    hour, minute = rng.randint(0, 23), rng.choice((0, 5, 10, 15, 20, 25, 30, 40, 45, 50, rng.randint(0, 59)))
    short = hour % 12 or 12
    half = "am" if hour < 12 else "pm"
    return rng.choice(
        (
            f"{hour:02}:{minute:02}", f"{hour}:{minute:02}", f"{short}:{minute:02} {half}", f"{short} {half}", f"{short}{half}",
            f"{hour:02}:{minute:02}:{rng.randint(0, 59):02}", f"{short}:{minute:02}{half.upper()}", f"{hour}h{minute:02}",
        )
    )  # fmt: skip


def _amount(_: ValueSource, rng: random.Random) -> str:
    whole = rng.choice((rng.randint(1, 99), rng.randint(100, 999), rng.randint(1000, 49999)))
    cents = rng.choice((0, 50, 99, 95, rng.randint(0, 99)))
    grouped, code = f"{whole:,}", rng.choice(CURRENCIES)
    european = grouped.replace(",", ".")
    return rng.choice(
        (
            f"${grouped}.{cents:02}", f"€{grouped}.{cents:02}", f"£{whole}.{cents:02}", f"{european},{cents:02} €",
            f"{code} {grouped}.{cents:02}", f"{whole}.{cents:02} {code}", f"{whole} {code}", f"${whole}", f"{european},{cents:02} EUR",
            f"{whole} euros", f"CHF {whole}.{cents:02}",
        )
    )  # fmt: skip


def _phone(source: ValueSource, rng: random.Random) -> str:
    patterns = (
        "+99 99 9999999",
        "999-9999",
        "(999) 999-9999",
        "+99 999 999 999",
        "0999 999999",
        "099 9999 9999",
        "+1-999-999-9999",
    )
    return source.faker("phone_number", rng) if rng.random() < 0.4 else fill(rng.choice(patterns), rng)


def _id(*patterns: str) -> Callable[[ValueSource, random.Random], str]:
    return lambda _, rng: fill(rng.choice(patterns), rng)


def _iban(_: ValueSource, rng: random.Random) -> str:
    body = (
        rng.choice(("DE", "FR", "NL", "PL", "ES", "GB", "AT")) + digits(rng, 2) + digits(rng, rng.choice((12, 14, 16)))
    )
    return body if rng.random() < 0.6 else " ".join(body[i : i + 4] for i in range(0, len(body), 4))


def _service(source: ValueSource, rng: random.Random) -> str:
    return f"{source.word('service_first', rng)}{rng.choice('-_')}{source.word('service_last', rng)}"


def _host(source: ValueSource, rng: random.Random) -> str:
    return rng.choice(
        (
            fill("web-99", rng), fill("db9", rng), f"{source.word('service_first', rng)}{fill('-99', rng)}",
            fill("node-999", rng), f"{fill('srv99.', rng)}{source.faker('domain_name', rng)}",
        )
    )  # fmt: skip


def _path(source: ValueSource, rng: random.Random) -> str:
    steps = [source.word("path_words", rng) for _ in range(rng.randint(1, 3))]
    return (
        "/" + "/".join(steps) + rng.choice(("", "", f"/{rng.randint(1, 9999)}", ".html", f"?id={rng.randint(1, 999)}"))
    )


def user(source: ValueSource, rng: random.Random) -> str:
    name = source.faker("first_name", rng).lower().encode("ascii", "ignore").decode().replace(" ", "") or "guest"
    return rng.choice(
        (name, f"{name}{digits(rng, 2)}", f"{rng.choice('abcdefghjkm')}{name}", "root", f"{name}_{digits(rng, 1)}")
    )


def _weight(_: ValueSource, rng: random.Random) -> str:
    value = rng.choice(
        (
            f"{rng.randint(1, 80)}",
            f"{rng.randint(0, 40)}.{rng.randint(1, 9)}",
            f"{rng.randint(0, 20)},{rng.randint(1, 9)}",
        )
    )
    return rng.choice((f"{value} kg", f"{value}kg", f"{rng.randint(50, 950)} g", f"{value} lbs"))


def _seat(_: ValueSource, rng: random.Random) -> str:
    return f"{rng.randint(1, 45)}{rng.choice('ABCDEF')}"


def _salary(_: ValueSource, rng: random.Random) -> str:
    low = rng.randint(22, 140)
    return rng.choice(
        (f"{low},000 EUR", f"${low},000", f"£{low}k", f"{low}k", f"{low}.000 €", f"€{low}k-{low + rng.randint(3, 20)}k")
    )


def _version(_: ValueSource, rng: random.Random) -> str:
    return rng.choice(("", "v")) + ".".join(str(rng.randint(0, 24)) for _ in range(rng.choice((2, 3, 3))))


def _product(source: ValueSource, rng: random.Random) -> str:
    text = f"{source.word('adjectives', rng)} {source.word('nouns', rng)}"
    return rng.choice((text, text.title(), text, f"{text} {fill('A9', rng)}", source.word("nouns", rng)))


def _place(source: ValueSource, rng: random.Random) -> str:
    name = f"{source.word('venue_first', rng)} {source.word('venue_last', rng)}"
    return rng.choice(
        (
            name,
            name,
            f"{source.word('venue_last', rng)} {rng.randint(1, 20)}",
            f"{source.faker('last_name', rng)} {source.word('venue_last', rng)}",
        )
    )


def _role(source: ValueSource, rng: random.Random) -> str:
    role = source.word("roles", rng)
    return rng.choice((role, role, f"{source.word('role_first', rng)} {role}", role.lower()))


def _website(source: ValueSource, rng: random.Random) -> str:
    return rng.choice(("", "www.", "https://")) + source.faker("domain_name", rng)


Draw = Callable[[ValueSource, random.Random], str]
DRAW: dict[str, Draw] = {
    "name": _name,
    "email": _email,
    "phone": _phone,
    "company": lambda source, rng: source.faker("company", rng),
    "role": _role,
    "city": lambda source, rng: source.faker("city", rng),
    "website": _website,
    "order_id": _id("ORD-99999", "#99999", "A-9999-999", "9999999", "**-99999", "PO999999"),
    "product": _product,
    "quantity": lambda _, rng: str(rng.choice((rng.randint(1, 12), rng.randint(1, 500)))),
    "amount": _amount,
    "date": _date,
    "event": lambda source, rng: f"{source.word('event_first', rng)} {source.word('event_last', rng)}",
    "time": _time,
    "place": _place,
    "street": lambda source, rng: source.faker("street_address", rng),
    "postcode": lambda source, rng: source.faker("postcode", rng),
    "country": lambda source, rng: source.faker("country", rng),
    "iban": _iban,
    "invoice_id": _id("INV-9999", "RE-2099-9999", "INV99999", "9999/99", "F-99999", "2099-9999"),
    "level": lambda _, rng: rng.choice(("ERROR", "WARN", "INFO", "DEBUG", "FATAL", "WARNING", "CRITICAL", "error", "warn", "info", "TRACE")),
    "service": _service,
    "host": _host,
    "ip": lambda _, rng: ".".join(str(rng.randint(1, 254)) for _ in range(4)),
    "user": user,
    "status": lambda _, rng: rng.choice(("200", "201", "204", "301", "400", "401", "403", "404", "409", "429", "500", "502", "503", "504")),
    "path": _path,
    "duration": lambda _, rng: rng.choice((f"{rng.randint(1, 9999)} ms", f"{rng.randint(1, 9999)}ms", f"{rng.randint(0, 60)}.{rng.randint(0, 99):02}s")),
    "tracking_id": _id("1Z999AA9999", "JD999999999", "AA999999999AA", "999999999999", "TRK-******"),
    "carrier": lambda source, rng: source.word('carriers', rng),
    "weight": _weight,
    "doctor": lambda source, rng: f"{rng.choice(DOCTOR_TITLES)} {source.faker('last_name', rng)}",
    "room": _id("A9", "A99", "999", "9.99", "99"),
    "origin": lambda source, rng: source.faker("city", rng),
    "destination": lambda source, rng: source.faker("city", rng),
    "flight": lambda _, rng: f"{rng.choice(AIRLINES)}{rng.choice(('', ' '))}{rng.randint(10, 9999)}",
    "seat": _seat,
    "ticket_id": _id("#9999", "TCK-9999", "SUP-99999", "AAA-999", "T9999999"),
    "version": _version,
    "priority": lambda _, rng: rng.choice(("high", "low", "medium", "urgent", "critical", "normal", "P1", "P2", "P3", "High", "Low")),
    "sku": _id("AA-9999", "***-999", "SKU9999", "A9999-AA", "99-AAA-99"),
    "salary": _salary,
}  # fmt: skip
