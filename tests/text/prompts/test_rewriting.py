"""A value in another format: what the text cannot mean is told, and what is right is not doubted."""

import random
import re
import time

import pytest

from redraft.bundled.card import BUNDLED, NORMALIZATION_FORMS
from redraft.bundled.data import normalization
from redraft.bundled.data.wide.records import REFUSAL, UNSAYABLE, make_normalization
from redraft.evaluation.tasks import TASKS
from redraft.text.prompts.forms import PromptForm
from redraft.text.prompts.reading import ReadPrompt
from redraft.text.prompts.rewriting import check_rewritten
from redraft.text.prompts.values import UNITS


def check(prompt: str, answer: str) -> list[str]:
    request, mark, text = re.split(r"([:?] )", prompt, maxsplit=1)
    return list(check_rewritten(request + mark.strip(), answer, text))


@pytest.mark.parametrize(
    ("prompt", "answer", "told"),
    [
        ("Write the amount as 0.00 CUR: -15,50 EUR", "15.50 EUR", "the text has '-' beside its amount"),
        ("Write the amount as 0.00 CUR: (15.50) USD", "15.50 USD", "the text has '(15.50)' beside"),
        ("Write the amount as 0.00 CUR: 12 thousand dollars", "12.00 USD", "the text has '12 thousand' beside"),
        ("Write the amount as CUR 0,000.00: 2.5k EUR", "EUR 2.50", "the text has '2.5k' beside"),
        ("Write the amount as 0.00 CUR: twenty euros", "0.00 EUR", "the amount 0.00 does not stand in the text"),
        ("Write the date as YYYY-MM-DD: 05/06/2024", "2024-05-05", "the date 2024-05-05 does not stand in the text"),
        (
            "Write the date as YYYY-MM-DD: 03/04/2024",
            "2024-04-03",
            "the date in the text can be read as 4 March or",
        ),
        (
            "Write the date as YYYYMMDD: pay us in a day or by 03/04/2024",
            "20240403",
            "the date in the text can be read as 4 March or",
        ),
        (
            "Write the date as D Month YYYY: on 5-6-2024",
            "6 May 2024",
            "the date in the text can be read as 6 May or",
        ),
        ("Write the date as YYYY-MM-DD: from 3 May to 5 May 2024", "2024-05-03", "the text has more than one day"),
        ("Write the date as YYYY-MM-DD: 3-5 May 2024", "2024-05-03", "the text has more than one day"),
        ("Write the date as YYYY-MM-DD: June 3rd and July 4th, 2024", "2024-07-04", "the text has more than one day"),
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
        # Another number, or a number of the text for another thing.
        ("Write the amount as 0.00 CUR: 12 USD and 13 EUR", "12.13 EUR", "the amount 12.13 does not stand in the text"),
        ("Write the amount as 0.00 CUR: EUR 12 and EUR 13", "12.13 EUR", "the amount 12.13 does not stand in the text"),
        ("Write the amount as 0.00 CUR: 738 pence (GBP)", "738.00 GBP", "the amount 738.00 does not stand in the text"),
        ("Write the amount as 0.00 CUR: 12 EUR", "-12.00 EUR", "the text has no sign before its amount: check the ans"),
        ("Write the weight in g: -5 kg", "5000 g", "the text has '-' beside its quantity"),
        ("Write the duration in s: 2m30s", "2 s", "the quantity 2 s is not that of the text"),
        ("Write the duration in min: 1 hour and 30 minutes", "60 min", "the quantity 60 min is not that of the text"),
        (
            "Write the phone as +CC NUMBER: +49 12",
            "+31 2020012",
            "the phone number +31 2020012 does not stand in the t",
        ),
        ("Write the phone as E.164: +44 20 7946 0018", "+44207946001", "the phone number +44207946001 does not stand"),
        ("Write the phone as 00 and digits: +44(0)599-216169", "00440599216169", "the phone number 00440599216169 do"),
        ("Write the phone as E.164: 07700 900123", "+357700900123", "the country code of +357700900123 does not stand"),
        # Another currency.
        ("Write the amount as 0.00 CUR: 12 dinars", "12.00 USD", "the currency USD does not stand in the text: check"),
        ("Write the amount as CUR 0,000.00: 40 pesos", "JPY 40.00", "the currency JPY does not stand in the text"),
        ("Write the amount as 0.00 CUR: 12 BTC", "12.00 GBP", "the currency GBP does not stand in the text"),
        ("Write the amount as 0.00 CUR: R$ 12", "12.00 USD", "the currency USD does not stand in the text"),
        # Another day or minute.
        ("Write the date as Month D, YYYY: 2024-13-01", "November 1, 2024", "the date November 1, 2024 does not stand"),
        ("Write the date as D Month YYYY: 7/8/24", "24 August 2024", "the date 24 August 2024 does not stand"),
        ("Write the date as YYYY-MM-DD: 2024-03-05", "2024-05-03", "the date 2024-05-03 does not stand in the text"),
        ("Write the date as YYYY-MM-DD: 5 March '92", "2092-03-05", "the date 2092-03-05 does not stand in the text"),
        ("Write the date as DD.MM.YYYY: 27OCT2048", "27.01.2048", "the date 27.01.2048 does not stand in the text"),
        ("Write the date as DD.MM.YYYY: 21 IX 1975", "21.01.1975", "the date 21.01.1975 does not stand in the text"),
        ("Write the date as DD.MM.YYYY: May the ninth, 2011", "08.05.2011", "the date 08.05.2011 does not stand"),
        ("Write the time as HH:MM: at 14:30", "14:50", "the time 14:50 does not stand in the text"),
        ("Write the time as HH:MM: at 14:30", "02:30", "the time 02:30 does not stand in the text"),
        ("Write the time as HHhMM: 9:05 pm", "09h05", "the time 09h05 does not stand in the text"),
        ("Write the time as h:MM am/pm: hour=20 minute=15", "3:00 pm", "the time 3:00 pm does not stand in the text"),
        ("Write the time as HH:MM: half past nine", "09:00", "the time 09:00 does not stand in the text"),
        ("Write the time as HH:MM: zero five hundred hours", "00:00", "the time 00:00 does not stand in the text"),
        ("Write the time as HH:MM: 24:45", "24:45", "there is no time 24:45"),
        ("Write the date as DD.MM.YYYY: 31 February 2024", "31.02.2024", "there is no day 31.02.2024"),
        ("Write the date as MM/DD/YYYY: 31 February 2024", "02/31/2024", "there is no day 02/31/2024"),
        ("Write the date as YYYYMMDD: 30 February 2023", "20230230", "there is no day 20230230"),
        ("Write the date as D Month YYYY: 2024-04-31", "31 April 2024", "there is no day 31 April 2024"),
        ("Write the date as Month D, YYYY: 2023-02-29", "February 29, 2023", "there is no day February 29, 2023"),
        ("Write the amount as 0.00 CUR: minus 20 EUR", "20.00 EUR", "the text has 'minus' beside its amount"),
        ("Write the amount as 0.00 CUR: half a dollar", "0.00 USD", "the amount 0.00 does not stand in the text"),
        ("Write the amount as 0.00 CUR: 2 and half a million dollars", "2.00 USD", "the text has 'million dollars'"),
        ("Write the amount as 0.00 CUR: 20 Australian dollars", "20.00 USD", "the currency USD does not stand in the"),
        ("Write the amount as 0.00 CUR: on 5 March I paid 20 EUR", "5.00 EUR", "the amount 5.00 does not stand in"),
        ("Write the amount as 0.00 CUR: 10 m of rope, 20 EUR", "10.20 EUR", "the amount 10.20 does not stand in"),
        ("Write the phone as +CC NUMBER: +420 601 123 456", "+42 601123456", "the phone number +42 601123456 does not"),
        ("Write the phone as +CC NUMBER: +380 44 123 4567", "+38 441234567", "the phone number +38 441234567 does not"),
        ("Write the time as HH:MM: tonight at 8", "08:00", "the time 08:00 does not stand in the text"),
        # No answer in the format asked for.
        ("Write the time as HH:MM: half past nine", "0h3falf", "the answer '0h3falf' is no time as HH:MM"),
        ("Write the size in MB: 2 GiB", "2 B MB", "the answer '2 B MB' is no size in MB"),
        ("Write the amount as 0.00 CUR: 7 quid", "7.00 id0 id00 id0", "the answer '7.00 id0 id00 id0' is no amount as"),
        ("Write the phone as E.164: call me maybe", "+3bebebe", "the answer '+3bebebe' is no phone number as E.164"),
        ("Write the weight in kg: 850 g", "850 g", "the answer '850 g' is no weight in kg"),
        ("Write the date as YYYY-MM-DD: 03.03.2024", "03.03.2024", "the answer '03.03.2024' is no date as YYYY-MM-DD"),
        ("Fix the typos: hello", 'hello", " hello hello hello hello', "the answer has 33 characters, and the text 5"),
        ("Fix the typos: I herd it was late", "I heard it was was was was", "the answer ends in ' was was was'"),
        ("Fix the typos: We wil deliver teh order on Monday.", "We will", "the answer has 7 characters, and the text"),
    ],
)
def test_what_the_text_cannot_mean_is_told(prompt: str, answer: str, told: str):
    (found,) = check(prompt, answer)
    assert found.startswith(told)
    assert "check" in found


def test_right_answers_are_not_doubted():
    cases = [(case.prompt, case.answer) for name in ("normalize", "repair") for case in TASKS[name].cases()]
    drawn = [normalization.training_record(5, index) for index in range(2000)]
    drawn += [*normalization.held_out_records(1000, seen=False, seed=5)]
    cases += [(record.prompt, record.answer) for record in drawn]
    rng = random.Random(5)
    wide = [make_normalization(rng) for _ in range(1000)]
    # A request that follows its text is not read.
    cases += [(str(one.messages[0][1]), one.answer) for one in wide if re.search("[:?] ", str(one.messages[0][1]))]
    assert [(prompt, found) for prompt, answer in cases if (found := check(prompt, answer))] == []
    asked = {prompt.partition(":")[0] for prompt, _ in cases}
    assert {form.partition(":")[0] for form in NORMALIZATION_FORMS} <= asked


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Write the date as YYYY-MM-DD: 12 May 24", "2024-05-12"),
        ("Write the date as YYYY-MM-DD: 3rd of May 2024, at 10 to 12", "2024-05-03"),
        ("Write the date as YYYY-MM-DD: Saturday, May 4th 2024, 14:30 to 15:00", "2024-05-04"),
        ("Write the amount as 0.00 CUR: -15.50 EUR", "-15.50 EUR"),
        ("Write the amount as 0.00 CUR: minus 20 EUR", "-20.00 EUR"),
        ("Write the amount as 0.00 CUR: 20 EUR for 3 m of cloth", "20.00 EUR"),
        ("Write the amount as 0.00 CUR: half price: 20 EUR", "20.00 EUR"),
        ("Write the amount as 0.00 CUR: a dozen eggs for 3 EUR", "3.00 EUR"),
        ("Write the amount as 0.00 CUR: total 20, in EUR", "20.00 EUR"),
        ("Write the amount as 0.00 CUR: 20 US dollars", "20.00 USD"),
        ("Write the amount as 0.00 CUR: 12 BTC", "12.00 BTC"),
        ("Write the amount as 0.00 CUR: 7 quid", "7.00 GBP"),
        ("Write the amount as 0.00 CUR: 77 cents (EUR)", "0.77 EUR"),
        ("Write the date as YYYY-MM-DD: 05/06/2024 (DD/MM/YYYY)", "2024-06-05"),
        ("Write the date as YYYY-MM-DD: 05/06/2024, month first", "2024-05-06"),
        ("Write the date as YYYY-MM-DD: 05.06.2024", "2024-06-05"),
        ("Write the date as YYYY-MM-DD: 03.25.2024", "2024-03-25"),
        ("Write the date as YYYY-MM-DD: 5 kwietnia 2024", "2024-04-05"),
        ("Write the date as YYYY-MM-DD: 3 marca 2024 r.", "2024-03-03"),
        ("Write the date as YYYY-MM-DD: 21. IX. 1975", "1975-09-21"),
        ("Write the date as YYYY-MM-DD: Sept 3, 2024", "2024-09-03"),
        ("Write the date as YYYY-MM-DD: 1 aout 2024", "2024-08-01"),
        ("Write the time as HH:MM: half past nine in the evening", "21:30"),
        ("Write the time as HH:MM: half nine", "09:30"),
        ("Write the time as HH:MM: ten minutes to noon", "11:50"),
        ("Write the time as HH:MM: 2:30 de la tarde", "14:30"),
        ("Write the time as HH:MM: à 18 heures 30", "18:30"),
        ("Write the time as HH:MM: I am free at 2:30 in the afternoon", "14:30"),
        ("Write the time as HH:MM: on 12.05. at 9", "09:00"),
        ("Write the time as HH:MM: room 1 14.30", "14:30"),
        ("Write the time as HH:MM: 24:00", "24:00"),
        ("Write the weight in g: between 2 kg and 3 kg", "3000 g"),
        ("Write the weight in g: item (2) weighs 5 g", "5 g"),
        ("Write the weight in g: 2 kilos", "2000 g"),
        ("Write the weight in g: .5 kg", "500 g"),
        ("Write the duration in s: 2m30s", "150 s"),
        ("Write the duration in min: 2h30", "150 min"),
        ("Write the phone as E.164: UK, 07700 900123 ext. 5", "+447700900123"),
        ("Write the phone as E.164: +39 06 1234567", "+39061234567"),
        ("Write the phone as E.164: +44 (0)20 7946 0018", "+442079460018"),
        ("Write the time as HH:MM: tonight at 8", "20:00"),
        ("Write the date as YYYY-MM-DD: next Monday", UNSAYABLE),
        ("Fix the typos: ha ha ha ha ha ha", "Ha ha ha ha ha ha"),
        ("Fix the typos: a", "A"),
    ],
)
def test_what_the_text_can_mean_is_not_doubted(prompt: str, answer: str):
    assert check(prompt, answer) == []


@pytest.mark.parametrize("form", [form.removesuffix(" {text}") for form in NORMALIZATION_FORMS])
def test_each_format_that_is_known_is_named_where_an_answer_lacks_it(form: str):
    (found,) = check(f"{form} 5", "nonsense")
    assert found.endswith(f" {re.split(' (?:as|in) ', form, maxsplit=1)[1].removesuffix(':')}: check it")


@pytest.mark.parametrize("asked", ["date as week and year", "weight in stone", "amount as words", "colour as #RRGGBB"])
def test_a_format_that_is_not_known_is_not_asked_for(asked: str):
    assert check(f"Write the {asked}: 12", "nonsense") == []
    assert check("Give the date: 3 March 2024", "04.03.2024") != []  # a date in any format is held against the text


def test_each_unit_is_known():
    for kind, units in UNITS.items():
        for unit in units:
            assert check(f"Write the {kind} in {unit}: 12 {unit}", f"12 {unit}") == []
            assert len(check(f"Write the {kind} in {unit}: 12 {unit}", f"13 {unit}")) == 1


def read(prompt: str, *, refusal: str = "") -> ReadPrompt:
    tasks = (PromptForm(form).read(prompt) for form in BUNDLED.prompt_forms)
    return ReadPrompt([], task=next(task for task in tasks if task is not None), text=prompt, refusal=refusal)


@pytest.mark.parametrize(
    ("answer", "options", "found"),
    [
        ("31.02.2024", {}, ["there is no day 31.02.2024: check the date in the text"]),
        ("2024-02-31", {}, ["the answer '2024-02-31' is no date as DD.MM.YYYY: check it"]),
        # Who holds an answer to another format, or stops it, has asked for it.
        ('{"date": "2024"}', {"is_held": True}, []),
        ("03.", {"is_stopped": True}, []),
        (
            REFUSAL,
            {},
            ["the model says that this is not what it is for; its card has prompts that are (`redraft examples`)"],
        ),
        (UNSAYABLE, {}, []),
    ],
)
def test_an_answer_to_a_prompt_is_told_of_once(answer: str, options: dict[str, bool], found: list[str]):
    prompt = read("Write the date as DD.MM.YYYY: 31 February 2024", refusal=REFUSAL)
    told = prompt.check(answer, "stop", num_tokens=5, steps_per_canvas=(), max_steps=9, **options)
    assert list(told) == found


@pytest.mark.parametrize(
    "text",
    ["9" * 50_000, "(" * 50_000 + "1", "1 " * 50_000, "1.000 " * 20_000, "- " * 50_000, "2 kg 3 h " * 6_000,
     "ten min to " * 5_000, "+1 EUR and " * 5_000, "1 " + "and " * 12_000 + "\nEUR 5"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("form", "answer"),
    [("date as YYYYMMDD", "20240505"), ("amount as 0.00 CUR", "5.00 EUR"), ("size in MB", "5 MB"),
     ("time as HH:MM", "10:00"), ("amount as 0.00 CUR", "9" * 5000), ("size in MB", "9" * 5000 + " MB"),
     ("weight in g", "5 g"), ("duration in s", "5 s"), ("phone as E.164", "+4912345678")],
)  # fmt: skip
def test_long_texts_are_read_in_no_time(form: str, answer: str, text: str):
    begun = time.thread_time()
    check(f"Write the {form}: {text}", answer)
    assert time.thread_time() - begun < 20


def test_other_answers_are_left_alone():
    assert check("Fix the typos: it was 3 kg on 2024-05-05", "It was 4 kg on 2024-06-06") == []
    assert check("Summarize the update: nothing", "2024-06-06") == []
