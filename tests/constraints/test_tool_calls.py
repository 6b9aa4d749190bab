"""Tool calls as languages: each member is read back as calls whose arguments fit; what the template writes is one."""

import json
import random

import jsonschema_rs
import pytest

import redraft
from redraft.constraints.build import ConstraintSpec, build
from redraft.constraints.language.expression import Expressions
from redraft.constraints.limits import Budget
from redraft.constraints.tool_calls import ChatSpec, ToolSpec
from redraft.text import Content, Reasoning, ToolCall
from redraft.text.transcript import Transcript
from tests.constraints.judges import AMPLE
from tests.fakes.checkpoints import thinking_checkpoint

FIND = {
    "type": "object",
    "properties": {
        "where": {"type": "string", "maxLength": 6},
        "Count": {"type": "integer", "minimum": -3, "maximum": 12},
        "kind": {"enum": ["a", 'say "x"', None, 1.5, {"b": [True], "a c": "z"}]},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-c]{2}$"}, "maxItems": 3},
        "inner": {"type": "object", "properties": {"odd name": {"type": "boolean"}}, "required": ["odd name"]},
        "when": {"type": "string", "format": "date"},
    },
    "required": ["where", "kind"],
    "additionalProperties": False,
}
NAMED = {"type": "object", "propertyNames": {"pattern": "^[xy]{1,2}$"}, "additionalProperties": {"type": "null"}}
EMPTY = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = {"find": FIND, "map_it": NAMED, "now": EMPTY, "any": None}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> redraft.Model:
    return redraft.load(thinking_checkpoint(tmp_path_factory.mktemp("calls") / "thinking"))


def tool(name: str) -> ToolSpec:
    schema = TOOLS[name]
    return ToolSpec(name=name, parameters=None if schema is None else json.dumps(schema))


ALL = tuple(map(tool, TOOLS))
PERSON = ConstraintSpec(kind="json_schema", text='{"type": "object", "properties": {"name": {"type": "string"}}}')
SPECS = {
    "required": ChatSpec(tools=ALL, must_call=True),
    "single": ChatSpec(tools=(tool("find"),), must_call=True, max_calls=1),
    "thinking": ChatSpec(tools=(tool("now"), tool("map_it")), must_call=True, thinks=True),
    "auto": ChatSpec(tools=(tool("find"),), max_calls=1),
    "either": ChatSpec(content=PERSON, tools=(tool("now"),)),
    "thought": ChatSpec(content=PERSON, thinks=True),
}


@pytest.mark.parametrize("name", SPECS)
def test_every_member_is_read_as_calls_that_fit(model, name):
    spec = SPECS[name]
    automaton = build(spec, model.vocabulary, Budget(AMPLE))
    found: set[str] = set()
    for seed in range(60):
        transcript = Transcript(model.tokenizer)
        parts = [
            *transcript.push(automaton.random_member(random.Random(seed), 30)),
            *transcript.finish(),
        ]
        calls = [part for part in parts if isinstance(part, ToolCall)]
        texts = [part for part in parts if isinstance(part, Content)]
        thoughts = [part for part in parts if isinstance(part, Reasoning)]
        for call in calls:
            assert call.complete
            arguments, schema = json.loads(call.arguments), TOOLS[call.name]
            assert isinstance(arguments, dict)
            if schema is not None:
                jsonschema_rs.validator_for(schema, validate_formats=True).validate(arguments)
        assert parts == sorted(parts, key=lambda part: isinstance(part, ToolCall)), parts
        assert len(thoughts) <= spec.thinks
        if spec.must_call:
            assert calls
            assert not texts
        if spec.max_calls:
            assert len(calls) <= spec.max_calls
        if spec.content:
            assert bool(calls) != bool(texts)
            assert all(isinstance(json.loads(part.text), dict) for part in texts)
        found |= {type(part).__name__ for part in parts}
    kinds = {"ToolCall": bool(spec.tools), "Content": not spec.must_call, "Reasoning": spec.thinks}
    assert found == {kind for kind, is_possible in kinds.items() if is_possible}


@pytest.mark.parametrize(
    "arguments",
    [
        {"where": 'P"\n é', "kind": "a"},
        {"kind": 1.5, "where": "日本", "Count": -3, "tags": ["ab", "cc"]},
        {"where": "", "kind": None, "when": "2024-02-29", "tags": []},
    ],
)
def test_what_the_template_writes_belongs_to_it(model, arguments):
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": arguments}}
    told = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    written = model.encode(told)
    opening = model.tokenizer.token_id("<|tool_call>")
    closing = model.tokenizer.token_id("<tool_call|>")
    ids = written[written.index(opening) : written.index(closing) + 1]
    automaton = build(SPECS["single"], model.vocabulary, Budget(AMPLE))
    state = automaton.state_after(ids)
    assert state is not None, model.tokenizer.decode(ids, skip_special=False)
    assert automaton.distance[state] == 1


def test_refusals_name_the_tool():
    bad = ToolSpec(
        name="find", parameters='{"type": "object", "properties": {"n": {"type": "number", "multipleOf": 3}}}'
    )
    with pytest.raises(ValueError, match=r"#/properties/n/multipleOf: .* \(parameters of find\)"):
        ChatSpec(tools=(bad,)).language(Expressions())
    for other in ('{"type": "string"}', '{"type": ["object", "null"]}'):
        with pytest.raises(ValueError, match=r"#/type: arguments are an object"):
            ChatSpec(tools=(ToolSpec(name="f", parameters=other),)).language(Expressions())
    with pytest.raises(ValueError, match="the limit is 262,144"):
        ChatSpec(tools=(ToolSpec(name="f", parameters=" " * 300_000),))
