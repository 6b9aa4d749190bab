"""Independent judges of what the compiler writes: jsonschema_rs for values, llguidance for texts."""

import json
import random
from typing import Any

import jsonschema_rs

from redraft.constraints.automaton import build_automaton
from redraft.constraints.json_schema.compiler import SchemaOptions, schema_language
from redraft.constraints.language.expression import Expression, Expressions
from redraft.constraints.limits import Budget, BuildLimits
from redraft.constraints.product import token_automaton
from redraft.constraints.tokens import TokenAutomaton
from redraft.constraints.vocabulary import Vocabulary

BYTES = Vocabulary([None, *(bytes([byte]) for byte in range(256))], end_ids=[0])
"""A vocabulary that can write everything, byte by byte."""
AMPLE = BuildLimits(seconds=60, token_states=10**6, arcs=10**8, bytes=1 << 30)


class Compiled:
    """A schema's language, its automaton and its members."""

    def __init__(self, schema: object, **options: Any) -> None:
        self.table = Expressions(Budget(AMPLE))
        self.language: Expression = schema_language(schema, self.table, SchemaOptions(**options))

    def allows(self, text: str) -> bool:
        return self.table.contains(self.language, text.encode())

    def writes(self, value: object) -> bool:
        """Tells whether a value can be written as `json.dumps` does."""
        return self.allows(json.dumps(value, ensure_ascii=False))

    def tokens(self) -> TokenAutomaton:
        return token_automaton(build_automaton(self.table, self.language), BYTES, Budget(AMPLE))

    def members(self, count: int, length: int = 200) -> list[str]:
        automaton = self.tokens()
        found = [automaton.random_member(random.Random(seed), length) for seed in range(count)]
        return [BYTES.text_of(ids).decode() for ids in [automaton.shortest(), *found]]


def is_valid(schema: Any, text: str) -> bool:
    return bool(jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(json.loads(text)))
