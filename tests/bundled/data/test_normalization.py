"""Normalising: the answers are what other libraries make of the value, and unseen styles are unseen."""

import datetime
import random
import re
from decimal import Decimal
from functools import cache

import pytest

from redraft.bundled.data.normalization import (
    COUNTRIES,
    CURRENCIES,
    KINDS,
    UNIT_NAMES,
    UNITS,
    training_record,
)
from redraft.bundled.data.record import Record


@cache
def records() -> list[Record]:
    return [training_record(0, index) for index in range(3000)]


def of_kind(kind: str) -> list[tuple[str, str, str]]:
    """(form, text, answer) of all training records of a kind."""
    found = []
    for record in records():
        if record.kind == f"normalize {kind}":
            match = re.fullmatch(rf"Write the {kind} (?:as|in) (.+?): (.*)", record.prompt)
            assert match is not None, record.prompt
            found.append((match[1], match[2], record.answer))
    assert len(found) > 100
    return found


def test_a_record_is_the_same_whatever_was_drawn_before():
    assert training_record(0, 17) == records()[17]
    assert training_record(1, 17) != records()[17]


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_of_a_kind_is_asked_for(kind):
    assert {form for form, _, _ in of_kind(kind)} == set(KINDS[kind].forms)


PATTERNS = {
    "YYYY-MM-DD": "%Y-%m-%d", "DD.MM.YYYY": "%d.%m.%Y", "MM/DD/YYYY": "%m/%d/%Y", "DD/MM/YYYY": "%d/%m/%Y",
    "YYYYMMDD": "%Y%m%d", "D Month YYYY": "%d %B %Y", "Month D, YYYY": "%B %d, %Y",
}  # fmt: skip


def test_dates_are_in_their_form_and_agree_with_the_text():
    for form, text, answer in of_kind("date"):
        date = datetime.datetime.strptime(answer, PATTERNS[form]).date()
        numbers = [int(number) for number in re.findall(r"\d+", text)]
        joined = "".join(re.findall(r"\d", text))
        year_there = date.year in numbers or date.year % 100 in numbers or f"{date:%Y%m%d}" in joined
        day_there = date.day in numbers or f"{date:%Y%m%d}" in joined
        assert year_there, (text, answer)
        assert day_there, (text, answer)


def test_numeric_dates_have_one_reading():
    for _, text, _ in of_kind("date"):
        if match := re.search(r"(?<!\d)(\d\d)/(\d\d)/\d{4}", text):
            assert max(int(match[1]), int(match[2])) > 12, text


def test_times():
    for form, text, answer in of_kind("time"):
        pattern = {"HH:MM": "%H:%M", "HHhMM": "%Hh%M", "h:MM am/pm": "%I:%M %p"}[form]
        time = datetime.datetime.strptime(answer, pattern).time()
        if match := re.search(r"(\d\d):(\d\d)(?!\d| ?[ap]\.?m)", text, re.IGNORECASE):
            assert (time.hour, time.minute) == (int(match[1]), int(match[2])), (text, answer)
        if re.search(r"[ap]\.?m", text.replace("if I read", ""), re.IGNORECASE):
            assert (time.hour >= 12) == bool(re.search(r"p\.?m", text, re.IGNORECASE)), (text, answer)


def test_amounts_hold_the_texts_digits_and_currency():
    for form, text, answer in of_kind("amount"):
        code = re.search(r"[A-Z]{3}", answer)[0]
        names = (code, code.lower(), *CURRENCIES[code], CURRENCIES[code][1].title())
        assert any(name in text for name in names), (text, answer)
        number = answer.replace(code, "").strip()
        if form == "0.000,00 CUR":
            number = number.replace(".", "").replace(",", ".")
        value = Decimal(number.replace(",", ""))
        digits = "".join(re.findall(r"\d", text.replace("/100", "")))
        assert digits in (str(int(value * 100)), str(int(value))), (text, answer)


def test_phones_hold_the_countrys_code_and_the_texts_digits():
    for form, text, answer in of_kind("phone"):
        digits = re.sub(r"\D", "", answer).removeprefix("00" if form == "00 and digits" else "")
        country = next((name for name in COUNTRIES if name in text), None)
        found = re.sub(r"\D", "", re.sub(r"\(0\)", "", text)).removeprefix("00")
        if country and "+" not in text:
            assert digits == COUNTRIES[country] + found[1:], (text, answer)
        else:
            assert digits == found, (text, answer)


@pytest.mark.parametrize("kind", UNITS)
def test_quantities_are_equal(kind):
    for asked, text, answer in of_kind(kind):
        number, unit = answer.split(" ")
        assert unit == asked
        found = re.search(r"\d+(?:[.,]\d+)?", text)[0]
        units = [
            name
            for name in UNITS[kind]
            if re.search(rf"(?<![A-Za-z]){name}(?![A-Za-z])", text)
            or re.search(rf"(?<![A-Za-z]){UNIT_NAMES[name][:-1]}", text, re.IGNORECASE)
        ]
        assert any(
            Decimal(found.replace(",", ".")) * UNITS[kind][name] == Decimal(number) * UNITS[kind][asked]
            for name in units
        ), (text, answer)


def test_styles_of_both_halves_can_be_read_in_one_way_only():
    """No text stands for two values of its kind: where both halves write the same, they mean the same."""
    for name, kind in KINDS.items():
        rng, meaning = random.Random(0), {}
        for _ in range(400):
            value = kind.draw(rng)
            for style in (*kind.seen, *kind.unseen):
                if (written := style(value, rng)) is not None:
                    assert meaning.setdefault(written, value) == value, (name, written)


def test_every_style_written_apart_can_be_drawn():
    for kind in KINDS.values():
        rng = random.Random(0)
        values = [kind.draw(rng) for _ in range(4000)]
        for style in kind.unseen:
            assert any(style(value, rng) is not None for value in values)
