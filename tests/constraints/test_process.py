"""Builds in a process of their own: the same automata, and no constraint that holds it up, fills it or kills it."""

import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from redraft.constraints.build import ConstraintSpec, build
from redraft.constraints.process.builder import Builder, BuildRefused
from redraft.constraints.process.worker import spec_from_json, spec_to_json, vocabulary_from_json, vocabulary_to_json
from redraft.constraints.tool_calls import ChatSpec, ToolSpec
from redraft.constraints.vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    [None, *(bytes([byte]) for byte in range(256)), None, b"ab", b"", b'{"', b"\xfd"],
    end_ids=[0],
    strips_first_space=True,
)
SECONDS = 0.3
MAX_BYTES = 200 * 10**6
PERSON = ConstraintSpec(kind="json_schema", text='{"properties": {"name": {"type": "string", "maxLength": 3}}}')
TEXTS = [f"word{n:x}" * 20 for n in range(3000)]
DEEP = "[" * 60 + "]" * 60


def schema(**parts: object) -> ConstraintSpec:
    return ConstraintSpec(kind="json_schema", text=json.dumps(parts))


def pattern(text: str) -> ConstraintSpec:
    return ConstraintSpec(kind="regex", text=text)


HOSTILE = [
    pattern("(a{1,1000}){1,1000}"),
    pattern('"([^"\\\\]|\\\\.){0,5000}"'),
    pattern("(a|b)*a(a|b){600}"),
    pattern("(" * 900 + "a" + ")" * 900),
    pattern("((a*)*)*b{0,1000}(c?){1000}"),
    ConstraintSpec(kind="choice", choices=tuple(f"{n * 7919 % 10007}-{n}" for n in range(10_000))),
    ConstraintSpec(
        kind="json_schema", text='{"enum": ' + json.dumps(TEXTS)[: 256 * 1024 - 400].rpartition(",")[0] + "]}"
    ),
    ConstraintSpec(kind="json_schema", text='{"not": ' * 1000 + "true" + "}" * 1000),
    schema(**{"$ref": "#"}),
    schema(**{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
    schema(
        **{
            "$defs": {"t": {"type": "object", "properties": {c: {"$ref": "#/$defs/t"} for c in "abcdef"}}},
            "$ref": "#/$defs/t",
        }
    ),
    schema(allOf=[{"anyOf": [{"pattern": f"{c}{n}"} for c in "abcdefgh"]} for n in range(8)]),
    schema(type="array", minItems=900, items={"type": "string", "minLength": 900, "maxLength": 5000}),
    ConstraintSpec(
        kind="grammar", text="\n".join(f"r{n}: r{n + 1} r{n + 1} r{n + 1}" for n in range(40)) + '\nr40: "a"\nstart: r0'
    ),
    ConstraintSpec(kind="grammar", text="start: start start start | start"),
    ChatSpec(tools=tuple(ToolSpec(name=f"f{n}") for n in range(300)), must_call=True),
]


@pytest.fixture(scope="module")
def builder() -> Iterator[Builder]:
    builder = Builder(VOCABULARY, seconds=SECONDS)
    yield builder
    builder.stop()


def most_memory(pid: int) -> int:
    """The bytes that a process has held at most."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("spec", HOSTILE, ids=lambda spec: type(spec).__name__ + str(getattr(spec, "text", ""))[:30])
def test_a_hostile_constraint_is_built_or_refused(builder, spec):
    refusal = None
    try:
        assert builder.build(spec).min_tokens >= 0
    except BuildRefused as error:
        refusal = error
    assert refusal is None or refusal.reason in ("schema", "invalid", "too_large")
    assert len(str(refusal)) < 1000
    if Path("/proc").is_dir() and builder.pid is not None:
        assert most_memory(builder.pid) < MAX_BYTES
    assert builder.build(pattern("ab")).min_tokens == 1


def test_what_it_builds_is_what_is_built_here(builder):
    calls = ChatSpec(
        tools=(ToolSpec(name="f", parameters=PERSON.text), ToolSpec(name="g")), must_call=True, max_calls=2, thinks=True
    )
    specs = [
        PERSON,
        pattern("(ab|é)+"),
        ConstraintSpec(kind="choice", choices=("a", "ab")),
        ChatSpec(content=PERSON, thinks=True),
    ]
    for spec in (*specs, calls):
        assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
        if spec is not calls:
            found, expected = builder.build(spec), build(spec, VOCABULARY)
            assert found.to_bytes() == expected.to_bytes()
    read = vocabulary_from_json(json.loads(json.dumps(vocabulary_to_json(VOCABULARY))))
    assert read.hash == VOCABULARY.hash
    assert np.array_equal(read.levels[0].tokens, VOCABULARY.levels[0].tokens)


def test_what_is_said_beside_a_language_is_there_too():
    vocabulary = Vocabulary([None, *(bytes([byte]) for byte in range(256))], end_ids=[0])
    builder = Builder(vocabulary)
    try:
        for spec, texts, is_filled in (
            (ConstraintSpec(kind="choice", choices=("a", "b", "a")), ("a", "b"), False),
            (ConstraintSpec(kind="filled", choices=("a", "b"), limit=3), None, True),
            (ConstraintSpec(kind="filled", choices=("", "b"), limit=3), None, False),
            (pattern("a|b"), None, False),
        ):
            for found in (builder.build(spec), build(spec, vocabulary)):
                assert (found.labels and found.labels.texts, found.is_filled) == (texts, is_filled)
    finally:
        builder.stop()
    # At the start of an answer such a vocabulary has tokens that write less than elsewhere.
    assert build(ConstraintSpec(kind="choice", choices=("a",)), VOCABULARY).labels is None


def test_the_death_of_the_process_is_survived():
    builder = Builder(VOCABULARY, seconds=30)
    assert builder.pid is None
    assert builder.build(pattern("ab")).min_tokens == 1
    first = builder.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert builder.build(pattern("abc")).min_tokens == 2
    assert builder.pid not in (None, first)

    def kill_again_and_again() -> None:
        while not ended.wait(0.01):
            if (pid := builder.pid) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    ended = threading.Event()
    killer = threading.Thread(target=kill_again_and_again)
    killer.start()
    try:
        with pytest.raises((BuildRefused, RuntimeError), match=r"died over this one, twice|did not start"):
            builder.build(HOSTILE[0])
    finally:
        ended.set()
        killer.join()
    assert builder.build(pattern("abcd")).min_tokens == 3

    # A build that goes on when it is stopped does not start another process.
    stopping = threading.Timer(0.2, builder.stop)
    stopping.start()
    with pytest.raises(BuildRefused, match="shutting down"):
        builder.build(HOSTILE[0])
    stopping.join()
    assert builder.pid is None


def test_a_build_that_does_not_look_at_the_clock_is_ended():
    builder = Builder(VOCABULARY, seconds=SECONDS)
    builder.start()
    assert builder.pid is not None
    # What the process does not do itself: it is stopped, and answers nothing.
    os.kill(builder.pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(BuildRefused, match=r"is not built after 1\.5 s: shorten it"):
        builder.build(pattern("a"))
    assert time.monotonic() - started < 60
    assert builder.build(pattern("a")).min_tokens == 1
    builder.stop()
