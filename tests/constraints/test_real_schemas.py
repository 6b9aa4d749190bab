"""Real schemas: most compile, whatever is written for them is valid, and what is refused is told in a table."""

import json
from collections import Counter
from pathlib import Path

import jsonschema_rs
import pytest

from redraft.constraints.json_schema.document import SchemaRefused
from redraft.constraints.limits import LimitExceeded
from tests.constraints.judges import Compiled

SCHEMAS = Path(__file__).parents[3] / "shared" / "data" / "schemas.jsonl"
MIN_SHARE = 0.8


@pytest.mark.slow
@pytest.mark.skipif(not SCHEMAS.exists(), reason=f"{SCHEMAS} is absent: the schemas are not part of this repository")
def test_most_real_schemas_compile_and_all_that_is_written_is_valid():
    rows = [json.loads(line) for line in SCHEMAS.read_text(encoding="utf-8").splitlines()]
    refused: Counter[str] = Counter()
    invalid = []
    for row in rows:
        try:
            members = Compiled(row["schema"]).members(3)
        except LimitExceeded as error:
            refused[error.limit] += 1
            continue
        except SchemaRefused as error:
            refused[error.keyword or str(error).rsplit(": ", 1)[-1]] += 1
            continue
        except ValueError as error:
            refused[str(error)] += 1
            continue
        try:
            judge = jsonschema_rs.validator_for(row["schema"], validate_formats=True)
        except ValueError:
            continue  # a schema that the judge refuses
        invalid += [(row["source"], text) for text in members if not judge.is_valid(json.loads(text))]
    compiled = 1 - sum(refused.values()) / len(rows)
    print(f"\n{compiled:.1%} of {len(rows)} schemas compile; refused:")
    for reason, count in refused.most_common():
        print(f"{count:5} {reason}")
    assert not invalid, invalid[:3]
    assert compiled >= MIN_SHARE
