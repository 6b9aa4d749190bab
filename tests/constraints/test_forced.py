"""Forced tokens: those of a text that has no other continuation, spaces apart."""

from redraft.constraints.build import ConstraintSpec, build
from redraft.constraints.forced import ForcedTokens
from redraft.constraints.vocabulary import Vocabulary

TEXTS = ['{"', "name", '"', ":", '": ', '": "', "n", "a", "b", "}", '"}', "null", "x"]
VOCABULARY = Vocabulary(
    [None, *(text.encode() for text in TEXTS), *(bytes([byte]) for byte in range(32, 127))], end_ids=[0]
)


def ids(*texts: str) -> list[int]:
    return [TEXTS.index(text) + 1 for text in texts]


def test_what_has_no_other_continuation_is_forced():
    schema = '{"type": "object", "properties": {"name": {"type": ["string", "null"]}}, "required": ["name"]}'
    spec = ConstraintSpec(kind="json_schema", text=schema[:-1] + ', "additionalProperties": false}')
    forced = ForcedTokens(build(spec, VOCABULARY), VOCABULARY)
    draft = [*ids('{"', "name", '": ', '"', "x", '"', "}"), 0, 0]
    assert forced.of_draft(draft) == [True, True, True, False, False, False, True, True, False]
    # The token that ends a key may begin a value: then it is not forced.
    assert forced.of_draft(ids('{"', "name", '": "'))[-1] is False
    forced.commit(ids('{"', "name"))
    assert forced.of_draft([*ids('": ', "null", "}"), 0]) == [True, False, True, True]
    # Nor is a space, of which it cannot be told whether there must be one.
    assert forced.of_draft([*ids('": ', '"'), VOCABULARY.token_bytes.index(b" ")])[-1] is False
    # Nothing is told of what is not of the language.
    assert forced.of_draft(ids("x", '": ')) == [False, False]
