"""Small grammars: what they allow, how deep they go, and what is refused by its rule."""

import pytest

from redraft.constraints.language.characters import Characters
from redraft.constraints.language.expression import Expressions
from redraft.constraints.language.grammar import MAX_GRAMMAR, grammar_language


def allowed(grammar: str, *texts: str, depth: int = 3) -> list[str]:
    table = Expressions()
    language = grammar_language(grammar, Characters(table), depth=depth)
    return [text for text in texts if table.contains(language, text.encode())]


GREETING = r"""
start: greeting (", " name)* "!"   # what is said
greeting: "hello" | /good (day|night)/
// a name, in capitals or not
name: [A-Z] [a-z]{1,3}
    | "\u00e9\"#\n"
"""


def test_rules_are_put_together():
    texts = ("hello!", "good night, Ada, Bob!", 'good day, é"#\n!', "hello", "good!", "hello, ada!", "hello, Abcde!")
    assert allowed(GREETING, *texts) == list(texts[:3])


def test_llama_cpps_way_of_writing_is_read():
    items = 'root ::= item+ ("," item){2}\nitem ::= [0-9] | "x"'
    assert allowed(items, "1,2,x", "x1,x,x", "1", "1,2") == ["1,2,x", "x1,x,x"]
    assert allowed('root ::= "a"{2,} ("b"{1,2})? | ""', "aab", "aa", "", "a", "aaabb") == ["aab", "aa", "", "aaabb"]


def test_a_rule_is_followed_into_itself_as_often_as_asked():
    nested = 'start: "(" start ")" | "x"'
    texts = ["x", "(x)", "((x))", "(((x)))", "((((x))))"]
    assert allowed(nested, *texts, depth=2) == texts[:3]
    assert allowed(nested, *texts) == texts[:4]
    assert allowed('start: a\na: b | "1"\nb: a "+" a', "1", "1+1", "1+1+1", depth=1) == ["1", "1+1"]


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ('a: "x"', "no rule named start or root"),
        ("start: other", "rule start: there is no rule named other"),
        ('start: "a', "rule start: .*not supported"),
        ('start: ("a"', "rule start: .*not closed"),
        ('start: "a")', "rule start: .*not opened"),
        ('start: * "a"', r"rule start: \* has nothing to repeat"),
        ('start: "a"{3,2}', "rule start: the repetition"),
        ('start: "a"\nstart: "b"', "rule start: there are two"),
        ("start: /(?=a)/", "rule start: .*look-around"),
        ('start: "a" -> alias', "rule start: '-> alias' is not supported"),
        ("%import common.WORD", "%import is not supported"),
        ('"a"', "is not a rule"),
        (r'start: "\q"', "escapes as JSON"),
        ("x" * (MAX_GRAMMAR + 1), "limit is 65,536"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_rule(grammar: str, message: str):
    with pytest.raises(ValueError, match=message):
        allowed(grammar)


def test_a_depth_out_of_range_is_refused():
    with pytest.raises(ValueError, match="1 to 16"):
        allowed('start: "a"', depth=0)
