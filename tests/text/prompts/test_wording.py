"""Requests for fields in words of their own: what they ask for, and of which text."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.bundled.card import WIDE
from redraft.bundled.data.wide.records import Conditions, make_array, make_object
from redraft.text.prompts.wording import lead_of_next, read_fields, read_request

MAIL = "Hi, this is Jo Lind from Acme. My order 4411 of 12 May is late. Call +46 8 123 456."
LIST = "- Ana, 31, Rome\n- Ben, 40, Oslo"


@pytest.mark.parametrize(
    ("prompt", "fields"),
    [
        ("Tell me the customer and the order number in this mail? JSON please.\n\n{}", ("customer", "order number")),
        ("Pls return json w/ customer, order_no\n{}", ("customer", "order_no")),
        ('I want this as JSON: {{"customer": "", "phone": ""}}\n\n{}', ("customer", "phone")),
        ('{{"customer": string, "company": string}}\nFill this JSON from the mail.\n\n{}', ("customer", "company")),
        ("From the message below, pull customer name and phone. JSON only.\n---\n{}", ("customer name", "phone")),
        ("{}\n\n=> customer, order number (json)", ("customer", "order number")),
        ("{}\n\nGive me a JSON object with the keys `customer` and `date`.", ("customer", "date")),
        ('"{}"\n\nPlease convert the above to JSON (customer, company).', ("customer", "company")),
        ("```\n{}\n```\nextract: customer, date -> json", ("customer", "date")),
        ("JSON please: customer, company, phone number.\n\n{}", ("customer", "company", "phone number")),
        ("Make JSON from this. Keys: customer, company, date.\n\n{}", ("customer", "company", "date")),
        ("Who wrote, and for which firm? Use customer / company as JSON keys.\n\n{}", ("customer", "company")),
        ("Need customer + order id in json format from: {}", ("customer", "order id")),
        ("Make JSON.\n\nFields:\n1. customer (who wrote)\n2. date\n\nText:\n{}", ("customer", "date")),
        ("Give me JSON with these fields:\n- customer\n- phone (with country code)\n\n{}", ("customer", "phone")),
        ("Analyse this and produce JSON with the fields customer, company.\nMessage: {}", ("customer", "company")),
        ("Bitte den Namen und die Bestellnummer als JSON: {}", ("Namen", "Bestellnummer")),
        ("Haal hieruit: klant, telefoon. Antwoord in JSON.\n\n{}", ("klant", "telefoon")),
    ],
)  # fmt: skip
def test_the_fields_and_the_text_of_a_request(prompt, fields):
    asked = prompt.format(MAIL)
    task = read_request(asked)
    assert task is not None
    assert (task.fields, task.is_array, task.is_reworded) == (fields, False, True)
    assert MAIL in task.text
    assert asked[task.start : task.start + len(task.text)] == task.text


@pytest.mark.parametrize(
    "prompt",
    [
        "For every person below give name and city. JSON array.\n{}",
        "Return a JSON array with name and city of everyone in this list:\n{}",
        "Turn the list into a JSON array with name and city for each person:\n{}",
        "{}\n\nReturn a JSON list of objects with the keys name and city",
        "list to JSON array [{{name, city}}]\n\n{}",
        "Erstelle ein JSON-Array mit einem Objekt pro Zeile (Felder: name, city).\n\n{}",
    ],
)
def test_an_array_is_asked_for_by_the_words_around_the_list(prompt):
    task = read_request(prompt.format(LIST))
    assert task is not None
    assert (task.fields, task.is_array, task.text) == (("name", "city"), True, LIST)


@pytest.mark.parametrize(
    "prompt",
    [
        MAIL,
        "Write a poem about JSON.",
        "Is JSON any good? I have heard of it from a friend of mine.",
        f"Extract writer: who wrote it, firm - where they work as JSON: {MAIL}",
        f"Summarise this in a sentence: {MAIL}",
        "Give me a JSON with name and city.",
        "",
        "json",
    ],
)
def test_what_is_not_clear_is_not_known(prompt):
    assert read_request(prompt) is None


def test_instructions_ask_for_the_fields_of_what_follows():
    asked = read_fields("You get a mail. Return JSON with the keys sender and date, nothing else.")
    assert asked is not None
    assert asked.fields == ("sender", "date")
    task = asked.of_text(f"\n{MAIL}\n")
    assert (task.fields, task.text, task.start) == (("sender", "date"), MAIL, 1)
    for said in ("You are a helpful assistant.", "Answer in JSON.", "Never discuss competitors, prices, or JSON."):
        assert read_fields(said) is None, said


@pytest.mark.parametrize(
    ("message", "lead"),
    [("And this one: x", 14), ("The same for:\nx", 14), ("Next:\nx", 6), ("Hello: x", 0), ("Now", 0), ("x: next", 0)],
)
def test_a_message_says_that_it_brings_another_text(message, lead):
    assert lead_of_next(message) == lead


def test_a_conversation_asks_for_what_an_earlier_message_says():
    first = ("user", f"Extract name, city as JSON: {MAIL}")
    answered = ("assistant", '{"name": "Jo Lind", "city": null}')
    task = WIDE.task_in([first, answered, ("user", "And this one: Ana, Rome")])
    assert task is not None
    assert (task.fields, task.text, task.start) == (("name", "city"), "Ana, Rome", 14)
    assert WIDE.task_in([first, answered, ("user", "Thanks, that is all.")]) is None
    told = WIDE.task_in([("system", "Return JSON with the keys name, city."), ("user", "Ana, Rome")])
    assert told is not None
    assert told.fields == ("name", "city")


@pytest.mark.parametrize(("is_seen", "least"), [(True, 0.85), (False, 0.85)])
def test_what_is_read_from_words_is_seldom_read_wrongly(is_seen, least):
    read: Counter[bool] = Counter()
    for index in range(600):
        make = make_array if index % 3 == 0 else make_object
        record = make(random.Random(f"words/{index}"), Conditions(is_seen=is_seen, language="en", scrambled=0.0))
        task = WIDE.task_of(record.messages[0][1]) if len(record.messages) == 1 else None
        if task is not None and task.is_reworded:
            answer = json.loads(record.answer)
            one = answer[0] if isinstance(answer, list) else answer
            read[task.fields == tuple(one) and task.is_array is isinstance(answer, list)] += 1
    assert sum(read.values()) > 20
    assert read[True] >= least * sum(read.values()), read


@given(st.text("abJSON json,:-`\"'()[]{}*\n.? eachwithkeys", max_size=120))
def test_whatever_a_prompt_is_it_is_read_or_not(prompt):
    task = read_request(prompt)
    if task is not None:
        assert task.fields
        assert prompt[task.start : task.start + len(task.text)] == task.text
