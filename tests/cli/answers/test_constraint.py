import json
import re

import pytest

SCHEMA = {
    "properties": {"name": {"type": "string", "maxLength": 5}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.fixture
def schema(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


def test_a_schema_is_shown_with_its_size_and_valid_members(run, checkpoint, schema):
    code, out, _ = run("constraint", schema, "--model", checkpoint)
    assert code == 0
    for words in ("states", "token classes", "arcs", "shortest answer"):
        assert words in out
    *_, shortest, one, two, three = out.splitlines()
    assert json.loads(shortest) == {"name": ""}
    assert all(list(json.loads(text)) == ["name"] for text in (one, two, three))
    assert run("constraint", "--json-schema", schema, "--model", checkpoint)[1] == out


def test_patterns_and_choices_are_shown(run, checkpoint):
    code, out, _ = run("constraint", "--regex", "[0-9]{3}", "--model", checkpoint)
    assert code == 0
    assert all(text.isdigit() and len(text) == 3 for text in out.splitlines()[-4:])
    code, out, _ = run("constraint", "--choice", "yes", "--choice", "no", "--model", checkpoint)
    assert code == 0
    assert set(out.splitlines()[-4:]) <= {"yes", "no"}


def test_a_grammar_is_shown(run, checkpoint, tmp_path):
    path = tmp_path / "rules.lark"
    path.write_text('start: ("a" | "b"){2}')
    code, out, _ = run("constraint", "--grammar", path, "--model", checkpoint)
    assert code == 0
    assert set("".join(out.splitlines()[-4:])) <= {"a", "b"}


def test_a_refusal_names_pointer_keyword_and_way_out(run, checkpoint, tmp_path):
    path = tmp_path / "schema.json"
    path.write_text('{"properties": {"n": {"type": "number", "multipleOf": 0.5}}}')
    code, _, err = run("constraint", path, "--model", checkpoint)
    assert code == 2
    assert "#/properties/n/multipleOf" in err
    assert "list them in an enum" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "there is no constraint"), (("--regex", "a", "--choice", "b"), "regex and --choice")],
)
def test_one_constraint_must_be_given(run, checkpoint, arguments, message):
    code, _, err = run("constraint", *arguments, "--model", checkpoint)
    assert code == 2
    assert message in err


@pytest.mark.parametrize("shown", [("--json",), ("--plain",)])
def test_an_answer_of_random_weights_fits_the_schema(run, checkpoint, schema, shown):
    code, out, _ = run("generate", "hello", "--model", checkpoint, "--json-schema", schema, "--seed", 3, *shown)
    assert code == 0
    answer = json.loads(out)["text"] if shown == ("--json",) else out
    (name,) = json.loads(answer).values()
    assert len(name) <= 5
    if shown == ("--json",):
        assert json.loads(out)["constraint"]["states"] > 1


def test_an_answer_matches_the_pattern_or_the_grammar(run, checkpoint, tmp_path):
    rules = tmp_path / "rules.lark"
    rules.write_text('start: "<" [0-9]{3} ">"')
    for option, value in (("--regex", "<[0-9]{3}>"), ("--grammar", rules)):
        code, out, _ = run("generate", "hello", "--model", checkpoint, option, value, "--plain")
        assert code == 0
        assert re.fullmatch("<[0-9]{3}>\n", out)
    code, out, _ = run("generate", "hello", "--model", checkpoint, "--choice", "yes", "--choice", "no", "--plain")
    assert (code, out in ("yes\n", "no\n")) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--regex", "a", "--json-schema", "SCHEMA"), "--json-schema and --regex are given: an answer has one"),
        (("--regex", "(?=a)"), "pattern, character 1"),
        (("--regex", "a{100}", "--max-new-tokens", "3"), "the shortest answer of this constraint has"),
        (("--json-schema", "none.json"), "none.json"),
    ],
)
def test_constraints_that_are_refused(run, checkpoint, schema, arguments, message):
    given = [schema if one == "SCHEMA" else one for one in arguments]
    code, _, err = run("generate", "hello", "--model", checkpoint, *given)
    assert code == 2
    assert message in err


def test_every_row_is_held_to_the_constraint(run, checkpoint, schema, tmp_path):
    rows, output = tmp_path / "rows.txt", tmp_path / "answers.jsonl"
    rows.write_text("hello\na dog\nthe fox\n")
    asked = ("generate", "--rows", rows, "--model", checkpoint, "--seed", 1)
    code, out, _ = run(*asked, "--json-schema", schema)
    assert code == 0
    answers = [json.loads(json.loads(line)["text"]) for line in out.splitlines()]
    assert [list(answer) for answer in answers] == [["name"]] * 3
    code, _, err = run(*asked, "--regex", "a{30}", "--max-new-tokens", 8, "--output", output)
    assert (code, "has 30 tokens, --max-new-tokens is 8" in err) == (2, True)
    assert not output.exists()
    code, _, _ = run(*asked, "--choice", "yes", "--choice", "no", "--output", output)
    assert code == 0
    assert {json.loads(line)["text"] for line in output.read_text().splitlines()} <= {"yes", "no"}
