import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from redraft.text import Content, Part, Reasoning, TextTokenizer, ToolCall
from redraft.text.calls import MAX_DEPTH, read_call
from redraft.text.transcript import Transcript
from tests.fakes.tokenizers import (
    CHAT_TEMPLATE,
    NAMED_TOKENS,
    SPECIAL_TOKENS,
    THINKING_TEMPLATE,
    THINKING_TOKENS,
    byte_level_tokenizer,
    gemma_tokenizer,
    llama_tokenizer,
    metaspace_tokenizer,
    thinking_tokenizer,
)

CONTROLS = (*SPECIAL_TOKENS, *THINKING_TOKENS)


def build(raw: Tokenizer, template: str | None = THINKING_TEMPLATE) -> TextTokenizer:
    return TextTokenizer(raw, named_tokens=NAMED_TOKENS, chat_template=template)


STYLES = {
    make.__name__: build(thinking_tokenizer(make))
    for make in (gemma_tokenizer, byte_level_tokenizer, llama_tokenizer, metaspace_tokenizer)
}
GEMMA, BYTES = STYLES["gemma_tokenizer"], STYLES["byte_level_tokenizer"]


class Control(str):
    """A control token, where a plain string is text, whatever it spells."""


THINK, END_THINK, CALL, END_CALL, RESPONSE = map(Control, THINKING_TOKENS[:5])
QUOTE = Control(THINKING_TOKENS[-1])


def encode(tokenizer: TextTokenizer, pieces: list[str]) -> list[int]:
    ids: list[int] = []
    for piece in pieces:
        if isinstance(piece, Control):
            token_id = tokenizer.token_id(piece)
            assert token_id is not None
            ids.append(token_id)
        else:
            ids += tokenizer.encode(piece)
    return ids


def pushes(tokenizer: TextTokenizer, ids: list[int], cuts: list[int]) -> list[list[Part]]:
    transcript = Transcript(tokenizer)
    edges = [0, *sorted(cut % (len(ids) + 1) for cut in cuts), len(ids)]
    return [*(transcript.push(ids[start:end]) for start, end in pairwise(edges)), transcript.finish()]


def joined(found: list[list[Part]]) -> list[Part]:
    """The parts of all pushes as if they came in one; within one there is nothing left to join."""
    for parts in found:
        for before, part in pairwise(parts):
            assert type(before) is not type(part) or isinstance(part, ToolCall)
    whole: list[Part] = []
    for part in (part for parts in found for part in parts):
        if isinstance(part, (Content, Reasoning)):
            assert part.text
            if whole and isinstance(whole[-1], type(part)):
                whole[-1] = type(part)(whole[-1].text + part.text)
                continue
        whole.append(part)
    return whole


def read(tokenizer: TextTokenizer, *pieces: str) -> list[Part]:
    """What is read, the same in one push as token by token."""
    ids = encode(tokenizer, list(pieces))
    whole = joined(pushes(tokenizer, ids, []))
    assert joined(pushes(tokenizer, ids, list(range(len(ids))))) == whole
    return whole


def tool(name: str, arguments: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


# Calls as a template writes them


def literal(value: object) -> list[str]:
    """A value in pieces, as a template writes it; keys that are no plain words in quotes."""
    if isinstance(value, str):
        return [QUOTE, value, QUOTE]
    if isinstance(value, dict):
        entries = [
            [*([key] if key.isidentifier() else literal(key)), ":", *literal(item)] for key, item in value.items()
        ]
        return ["{", *between(entries), "}"]
    if isinstance(value, list):
        return ["[", *between([literal(item) for item in value]), "]"]
    return [json.dumps(value)]


def between(groups: list[list[str]]) -> list[str]:
    return [piece for at, group in enumerate(groups) for piece in ([",", *group] if at else group)]


WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [*CONTROLS, '{"a": [1]}', "},{", '"', "\\", "\\n\n", "👩‍🚀🙂", "call:f{x:1}", "thought\n", " the dog"]
    ),
)
VALUES = st.recursive(
    st.one_of(WORDS, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    thought=WORDS,
    content=WORDS,
    arguments=st.lists(st.dictionaries(WORDS, VALUES, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 1000), max_size=12),
)
def test_any_arguments_come_back_however_the_ids_are_split(
    thought: str, content: str, arguments: list[dict[str, object]], cuts: list[int]
) -> None:
    pieces = [THINK, "thought\n", thought, END_THINK, content]
    for at, given_arguments in enumerate(arguments):
        pieces += [CALL, f"call:tool_{at}", *literal(given_arguments), END_CALL]
    ids = encode(BYTES, pieces)
    found = joined(pushes(BYTES, ids, cuts))
    assert found == joined(pushes(BYTES, ids, []))
    texts: list[Part] = [part for part in (Reasoning(thought), Content(content)) if part.text]
    assert found[: len(texts)] == texts
    calls = found[len(texts) :]
    assert len(calls) == len(arguments)
    for at, (call, given_arguments) in enumerate(zip(calls, arguments, strict=True)):
        assert isinstance(call, ToolCall)
        assert (call.name, call.complete) == (f"tool_{at}", True)
        assert json.loads(call.arguments) == given_arguments


@pytest.mark.parametrize("name", STYLES)
def test_random_tokens_give_the_same_parts_in_any_pieces_and_never_a_control_token(name: str) -> None:
    tokenizer = STYLES[name]
    marks = st.sampled_from([THINK, END_THINK, CALL, END_CALL, QUOTE])
    some = st.sampled_from(["thought\n", "call:f{", "a:", "1", ",", "}", "[", "]", "\n", "★", " the", "🙂"])
    byte = st.integers(130, 265)

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(tokens=st.lists(st.one_of(marks, some, byte), max_size=30), cuts=st.lists(st.integers(0, 60), max_size=8))
    def check(tokens: list[str | int], cuts: list[int]) -> None:
        ids = [at for token in tokens for at in ([token] if isinstance(token, int) else encode(tokenizer, [token]))]
        found = joined(pushes(tokenizer, ids, cuts))
        assert found == joined(pushes(tokenizer, ids, []))
        assert not any(control in str(part) for control in CONTROLS for part in found)

    check()


ARGUMENTS = {
    "city": 'Zürich "HB"',
    "days": 3,
    "exact": True,
    "factor": -1.5e-07,
    "nested": {"list": [1, "a", [], {}, None], "empty": ""},
    "text": "a, b: {c}\n<|channel>thought\n<tool_call|>",
}


@pytest.mark.parametrize("name", sorted(STYLES.keys() - {"metaspace_tokenizer"}))  # it cannot spell a brace
def test_what_the_template_writes_is_read_back(name: str) -> None:
    tokenizer = STYLES[name]
    asked: list[dict[str, object]] = [{"role": "user", "content": "hello"}]
    answer: dict[str, object] = {
        "role": "assistant",
        "content": "the dog",
        "tool_calls": [tool("weather", ARGUMENTS), tool("f-2.b", {})],
    }
    prompt = tokenizer.encode_chat(asked, enable_thinking=True)
    whole = tokenizer.encode_chat([*asked, answer], enable_thinking=True, add_generation_prompt=False)
    assert whole[: len(prompt)] == prompt
    first, second, third = joined(pushes(tokenizer, whole[len(prompt) :], [3, 11, 40]))
    assert first == Content("the dog")
    assert isinstance(second, ToolCall)
    assert (second.name, json.loads(second.arguments), second.complete) == ("weather", ARGUMENTS, True)
    assert third == ToolCall("f-2.b", "{}")


def test_the_fake_template_writes_tools_thoughts_and_responses() -> None:
    def shown(messages: list[dict[str, object]], **variables: object) -> str:
        return GEMMA.decode(GEMMA.encode_chat(messages, **variables), skip_special=False)

    asked: list[dict[str, object]] = [{"role": "user", "content": "hi"}]
    assert shown(asked) == "<bos><|turn>user\nhi<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"
    declared = {"type": "function", "function": {"name": "f", "description": "d"}}
    assert shown(asked, tools=[declared], enable_thinking=True) == (
        '<bos><|turn>system\n<|think|>\n<|tool>declaration:f{description:<|"|>d<|"|>,name:<|"|>f<|"|>}<tool|><turn|>\n'
        "<|turn>user\nhi<turn|>\n<|turn>model\n"
    )
    calls: list[dict[str, object]] = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "7", **tool("f", {"x": [None, False]})}]}
    ]
    response: list[dict[str, object]] = [{"role": "tool", "tool_call_id": "7", "content": "4"}]
    begun = (
        "<bos><|turn>user\nhi<turn|>\n<|turn>model\n<|tool_call>call:f{x:[null,false]}<tool_call|>"
        '<|tool_response>response:f{value:<|"|>4<|"|>}<tool_response|>'
    )
    assert shown([*asked, *calls, *response]) == begun
    ended = begun + "so 4<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"
    assert shown([*asked, *calls, *response, {"role": "assistant", "content": "so 4"}]) == ended


# Thoughts


def test_text_comes_out_at_once_and_calls_when_they_end() -> None:
    transcript = Transcript(BYTES)
    steps: list[tuple[list[str], list[Part]]] = [
        ([THINK], []),
        (["thought"], []),
        (["\n"], []),
        (["the dog"], [Reasoning("the dog")]),
        ([" on\n", END_THINK, " so", "\n"], [Reasoning(" on\n"), Content(" so\n")]),
        (["4", CALL, "call:f{x:"], [Content("4")]),
        ([QUOTE, "a"], []),
        (["b", QUOTE, "}"], []),
        ([END_CALL, CALL, "call:g{}", END_CALL, "x"], [ToolCall("f", '{"x":"ab"}'), ToolCall("g", "{}"), Content("x")]),
    ]
    for pieces, parts in steps:
        assert transcript.push(encode(BYTES, pieces)) == parts
    assert transcript.finish() == []


def test_a_characters_bytes_wait_for_its_last_and_its_section_ends_them() -> None:
    star = encode(BYTES, ["★"])
    assert len(star) == 3
    transcript = Transcript(BYTES)
    assert [transcript.push([token_id]) for token_id in star] == [[], [], [Content("★")]]
    assert transcript.push([*star[:2], *encode(BYTES, [THINK, "thought\n"]), star[2]]) == [
        Content("\ufffd"),
        Reasoning("\ufffd"),
    ]
    assert transcript.finish() == []


@pytest.mark.parametrize(
    ("pieces", "parts"),
    [
        ([THINK, "thought\n", "the dog", END_THINK, "42"], [Reasoning("the dog"), Content("42")]),
        ([THINK, "thought\n", END_THINK, "42"], [Content("42")]),
        ([THINK, "thought\n\n a \n", END_THINK, "\n42\n"], [Reasoning("\n a \n"), Content("\n42\n")]),
        ([THINK, "thought\n", "the dog"], [Reasoning("the dog")]),
        ([THINK, "thou"], []),
        ([THINK], []),
        ([THINK, "thought", END_THINK, "42"], [Content("42")]),
        ([THINK, "final\n", "42", END_THINK, "\n"], [Content("42\n")]),
        (["a", THINK, "final\n", "42"], [Content("a42")]),
        ([THINK, "thoughts\n", "42"], [Content("42")]),
        ([THINK, "\n", "42"], [Content("42")]),
        ([THINK, "thought\n", "a", END_THINK, THINK, "thought\n", "b", END_THINK], [Reasoning("ab")]),
        ([THINK, "thought\n", "a", THINK, "thought\n", "b", END_THINK, "c"], [Reasoning("ab"), Content("c")]),
        (
            [THINK, "thought\n", "a", CALL, "call:f{}", END_CALL, "b", END_THINK, "c"],
            [Reasoning("a"), ToolCall("f", "{}"), Content("bc")],
        ),
        (["thought\n", END_THINK, "a", END_CALL, QUOTE, "b", Control("<turn|>")], [Content("thought\nab")]),
        ([THINK, "thought\n", "a", QUOTE, END_CALL, "b"], [Reasoning("ab")]),
        ([THINK, Control("<pad>"), "thought", Control("<eos>"), "\n", "a"], [Reasoning("a")]),
        (["<|channel>thought\n", "a", "<channel|>"], [Content("<|channel>thought\na<channel|>")]),
        (["<|tool_call>call:f{}<tool_call|>"], [Content("<|tool_call>call:f{}<tool_call|>")]),
        ([], []),
    ],
)
def test_thoughts_and_content(pieces: list[str], parts: list[Part]) -> None:
    assert read(BYTES, *pieces) == parts
    assert read(GEMMA, *pieces) == parts


# Calls


def quoted(text: str) -> list[str]:
    """Pieces of a text in which ¦ stands for the quote token."""
    return [piece for at, part in enumerate(text.split("¦")) for piece in ([QUOTE, part] if at else [part])]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("{}", "{}"),
        ("{a:1}", '{"a":1}'),
        ("{a:¦x¦,b:¦¦}", '{"a":"x","b":""}'),
        ('{a:¦"}],{\\¦}', '{"a":"\\"}],{\\\\"}'),
        ("{a:[1,¦a¦,[],{}],o:{k:¦v¦}}", '{"a":[1,"a",[],{}],"o":{"k":"v"}}'),
        ("{a:true,b:false,c:null,d:True,e:False,f:None}", '{"a":true,"b":false,"c":null,"d":true,"e":false,"f":null}'),
        ("{a:-1.50e+3,b:12345678901234567890123}", '{"a":-1.50e+3,"b":12345678901234567890123}'),
        ("{¦a b¦:1,¦¦:2}", '{"a b":1,"":2}'),
        ('{"a\\"\\u00e9":"x, \\ud83d\\ude00"}', '{"a\\"\\u00e9":"x, \\ud83d\\ude00"}'),
        ('{a:"two\nlines"}', '{"a":"two\\nlines"}'),
        ('{a:"\\ud800"}', '{"a":"\\ufffd"}'),
        (" { a : 1 ,\n b : [ 1 , 2 ] } \n", '{"a":1,"b":[1,2]}'),
        ("{$ref:1,a-b.c/d:2,größe cm:3,1:4,true:5}", '{"$ref":1,"a-b.c/d":2,"größe cm":3,"1":4,"true":5}'),
    ],
)
def test_calls_are_read_as_json(text: str, arguments: str) -> None:
    for end in ([END_CALL], [], [CALL, "call:g{}", END_CALL]):
        first, *others = read(BYTES, CALL, *quoted("call:f" + text), *end)
        assert first == ToolCall("f", arguments)
        assert others == [ToolCall("g", "{}")] * (len(end) > 1)
    json.loads(arguments)


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("", "", ""),
        ("ca", "", "ca"),
        ("call:", "", "call:"),
        ("f{a:1}", "", "f{a:1}"),
        ("call:{a:¦x¦}", "", 'call:{a:"x"}'),
        ("¦call:f¦{}", "", '"call:f"{}'),
        ("call:f", "f", ""),
        ("call:f{", "f", "{"),
        ("call:f{a", "f", "{a"),
        ("call:f{a:", "f", "{a:"),
        ("call:f{a:1", "f", "{a:1"),
        ("call:f{a:1,", "f", "{a:1,"),
        ("call:f{a:1,}", "f", "{a:1,}"),
        ("call:f{a:¦x", "f", '{a:"x'),
        ("call:f{a:¦x}", "f", '{a:"x}'),
        ("call:f{a:¦x¦", "f", '{a:"x"'),
        ("call:f{a:¦x¦¦y¦}", "f", '{a:"x""y"}'),
        ('call:f{a:"x}', "f", '{a:"x}'),
        ('call:f{a:"x¦y"}', "f", '{a:"x"y"}'),
        ('call:f{a:"\\x"}', "f", '{a:"\\x"}'),
        ("call:f{a:[1,2}", "f", "{a:[1,2}"),
        ("call:f{a:[1 2]}", "f", "{a:[1 2]}"),
        ("call:f{a:[,]}", "f", "{a:[,]}"),
        ("call:f{a:Paris}", "f", "{a:Paris}"),
        ("call:f{a:01,b:.5}", "f", "{a:01,b:.5}"),
        ("call:f{a:NaN}", "f", "{a:NaN}"),
        ("call:f{:1}", "f", "{:1}"),
        ("call:f{a}", "f", "{a}"),
        ("call:f{{}:1}", "f", "{{}:1}"),
        ("call:f{a:1}}", "f", "{a:1}}"),
        ("call:f{} done", "f", "{} done"),
        ("call:f[1]", "f", "[1]"),
        ("call:f g{}", "f", " g{}"),
        ("call:f{a:1}call:g{}", "f", "{a:1}call:g{}"),
    ],
)
def test_malformed_and_unfinished_calls_are_calls_all_the_same(text: str, name: str, arguments: str) -> None:
    for end in ([END_CALL], [], [THINK, "thought\n", END_THINK]):
        assert read(BYTES, "a", CALL, *quoted(text), *end) == [
            Content("a"),
            ToolCall(name, arguments, complete=False),
        ]


def test_stray_tokens_in_a_call_have_no_text() -> None:
    pieces = [CALL, "call:f{a:", END_THINK, QUOTE, "x", Control("<pad>"), END_THINK, "y", QUOTE, "}", END_CALL]
    assert read(BYTES, *pieces) == [ToolCall("f", '{"a":"xy"}')]


def test_the_token_that_hands_over_to_the_tools_has_no_text_either() -> None:
    assert read(BYTES, CALL, "call:f{}", END_CALL, RESPONSE) == [ToolCall("f", "{}")]
    assert read(BYTES, CALL, "call:f{}", RESPONSE) == [ToolCall("f", "{}")]


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a:", "}")])
def test_nesting_is_bounded(opening: str, closing: str) -> None:
    def nested(depth: int) -> str:
        return "{a:" + opening * (depth - 1) + "1" + closing * (depth - 1) + "}"

    assert read_call([f"call:f{nested(MAX_DEPTH)}"]).complete
    deeper = nested(MAX_DEPTH + 1)
    assert read_call([f"call:f{deeper}"]) == ToolCall("f", deeper, complete=False)
    endless = "{a:" + opening * 200_000
    assert read_call([f"call:f{endless}"]) == ToolCall("f", endless, complete=False)


# Pushing


def test_a_finished_transcript_starts_a_new_answer() -> None:
    transcript = Transcript(GEMMA)
    for pieces in ([THINK, "thought\n", "a"], [CALL, "call:f{"], [THINK, "tho"]):
        transcript.push(encode(GEMMA, pieces))
        transcript.finish()
        assert [*transcript.push(encode(GEMMA, ["dog"])), *transcript.finish()] == [Content("dog")]


@pytest.mark.parametrize("token_id", [-1, 10**6])
def test_an_id_outside_the_vocabulary_is_refused_and_nothing_is_taken(token_id: int) -> None:
    transcript = Transcript(GEMMA)
    with pytest.raises(ValueError, match="outside the vocabulary, ids go from 0 to 399"):
        transcript.push([*encode(GEMMA, ["a", THINK, "thought\n"]), token_id])
    assert transcript.push(encode(GEMMA, ["dog"])) == [Content("dog")]


def test_without_the_tokens_all_is_content() -> None:
    plain = build(gemma_tokenizer(), CHAT_TEMPLATE)
    text = "<|channel>thought\nthe dog<channel|><|tool_call>call:f{}<tool_call|>"
    assert read(plain, text, Control("<turn|>"), "x") == [Content(text + "x")]


def test_a_word_or_half_a_pair_is_no_control_token() -> None:
    raw = gemma_tokenizer()
    raw.add_tokens([AddedToken(text, special=False) for text in (CALL, END_CALL)])
    raw.add_special_tokens([str(THINK), str(QUOTE)])
    tokenizer = build(raw)
    pieces = [THINK, "thought\n", CALL, "call:f{}", END_CALL, QUOTE]
    assert read(tokenizer, *pieces) == [Content("thought\n<|tool_call>call:f{}<tool_call|>")]


def test_what_a_template_reads() -> None:
    assert GEMMA.template_reads("tools")
    assert GEMMA.template_reads("enable_thinking")
    assert not GEMMA.template_reads("thinking_enabled")
    assert not GEMMA.template_reads("enable")
    plain = build(gemma_tokenizer(), CHAT_TEMPLATE)
    assert not plain.template_reads("tools")
    assert not build(gemma_tokenizer(), None).template_reads("messages")
