"""A value in another format: what the text cannot mean is told, and what is right is not doubted."""

import time
from decimal import Decimal

import pytest

from redraft.bundled.data import normalization
from redraft.evaluation.tasks import TASKS
from redraft.text.prompts.rewriting import check_rewritten, numbers_in


def check(prompt: str, answer: str) -> list[str]:
    request, text = prompt.split(": ", 1)
    return list(check_rewritten(f"{request}:", answer, text))


@pytest.mark.parametrize(
    ("prompt", "answer", "told"),
    [
        ("Write the amount as 0.00 CUR: -15,50 EUR", "15.50 EUR", "the text has '-' beside its amount"),
        ("Write the amount as 0.00 CUR: (15.50) USD", "15.50 USD", "the text has '(15.50)' beside"),
        ("Write the amount as 0.00 CUR: 12 thousand dollars", "12.00 USD", "the text has 'thousand' beside"),
        ("Write the amount as CUR 0,000.00: 2.5k EUR", "EUR 2.50", "the text has '5k' beside"),
        ("Write the amount as 0.00 CUR: twenty euros", "0.00 EUR", "the amount 0.00 does not stand in the text"),
        ("Write the date as YYYY-MM-DD: 05/06/2024", "2024-05-05", "the date 2024-05-05 does not stand in the text"),
        ("Write the date as YYYYMMDD: 12 Dec 1899", "19991212", "the date 19991212 does not stand in the text"),
        ("Write the date as YYYY-MM-DD: 2024-06", "2024-06-06", "the date 2024-06-06 does not stand in the text"),
        ("Write the date as D Month YYYY: June 2024", "2 June 2024", "the date 2 June 2024 does not stand"),
        ("Write the time as HH:MM: 25:61", "25:61", "there is no time 25:61"),
        ("Write the time as h:MM am/pm: 13:10", "13:10 pm", "there is no time 13:10 pm"),
        ("Write the time as HH:MM: noon", "00:00", "the time 00:00 does not stand in the text"),
        ("Write the weight in kg: 12 stone", "12 kg", "the text has none of the units mg, g, kg, t"),
        ("Write the size in MB: 300 KB", "300000 MB", "the quantity 300000 MB is not that of the text"),
        ("Write the size in MB: 1.5 GB", "15000 MB", "the quantity 15000 MB is not that of the text"),
        ("Write the volume in l: 3 litres", "3.0.0 l", "the quantity 3.0.0 l is not that of the text"),
    ],
)
def test_what_the_text_cannot_mean_is_told(prompt: str, answer: str, told: str):
    (found,) = check(prompt, answer)
    assert found.startswith(told)
    assert "check" in found


def test_right_answers_are_not_doubted():
    cases = [(case.prompt, case.answer) for case in TASKS["normalize"].cases()]
    records = (normalization.training_record(5, index) for index in range(1500))
    cases += [(record.prompt, record.answer) for record in records]
    doubted = [prompt for prompt, answer in cases if check(prompt, answer)]
    # Numbers in words are not read.
    assert doubted == ["Write the time as h:MM am/pm: four minutes to two at night"]


@pytest.mark.parametrize("text", ["9" * 50_000, "(" * 50_000 + "1", "1 " * 50_000, "1.000 " * 20_000, "- " * 50_000])
@pytest.mark.parametrize(
    ("form", "answer"),
    [("date as YYYYMMDD", "20240505"), ("amount as 0.00 CUR", "5.00 EUR"), ("size in MB", "5 MB"),
     ("time as HH:MM", "10:00"), ("amount as 0.00 CUR", "9" * 5000), ("size in MB", "9" * 5000 + " MB")],
)  # fmt: skip
def test_long_texts_are_read_in_no_time(form: str, answer: str, text: str):
    begun = time.thread_time()
    check(f"Write the {form}: {text}", answer)
    assert time.thread_time() - begun < 20


def test_other_answers_are_left_alone():
    assert check("Fix the typos: it was 3 kg on 2024-05-05", "It was 4 kg on 2024-06-06") == []
    assert check("Summarize the update: nothing", "2024-06-06") == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1.234", "1234 1.234"), ("1.5", "1.5"), ("1.234,50", "1234.50"), ("5'841'645", "5841645 5841.645"),
     ("on 3 March 2024", "3 2024"), ("43 545,00 kr", "43 545.00 43545.00"), ("none", "")],
)  # fmt: skip
def test_numbers_are_read_in_each_way(text: str, numbers: str):
    assert numbers_in(text) == set(map(Decimal, numbers.split()))
