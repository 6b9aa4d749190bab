"""Real schemas: whatever a model of random weights is made to write is valid, however little room there is."""

import json
import os
from pathlib import Path

import jsonschema_rs
import pytest

from redraft.constraints.build import ConstraintSpec, build
from redraft.constraints.vocabulary import Vocabulary
from redraft.diffusion.settings import SamplerSettings
from redraft.generation.loop import generate
from redraft.model.preparation import prepare
from redraft.model.transformer import Transformer
from tests.fakes.models import tiny_model

SCHEMAS = Path(__file__).parents[3] / "shared" / "data" / "schemas.jsonl"
EVERY = int(os.environ.get("REDRAFT_EVERY_SCHEMA", "25"))
"""One schema of so many is tried here; with 1 in the environment all are, which takes some minutes."""
CANVAS, PROMPT = 32, (5, 6, 7)
_MERGED = ['": "', '", "', '{"', '"}', '": ', ', "', "null", "true", "00", "12", "é", "an", "the ", "é日", "日本"]
BYTES = Vocabulary([None, *(bytes([byte]) for byte in range(256)), *(text.encode() for text in _MERGED)], end_ids=[0])
"""Every byte, and some tokens of several."""


def random_model(max_context: int) -> Transformer:
    model = tiny_model(vocab_size=BYTES.size, max_context=max_context, canvas_length=CANVAS, eos_ids=(0,))
    return prepare(model, "float32")


def problems(schema: object, model: Transformer) -> list[str] | None:
    """Returns what is wrong with the answers to a schema at every length that is close to a limit.

    None where it is not compiled, or where the judge refuses it.
    """
    try:
        constraint = build(ConstraintSpec(kind="json_schema", text=json.dumps(schema)), BYTES)
        judge = jsonschema_rs.validator_for(schema, validate_formats=True)
    except ValueError:
        return None
    found, shortest = [], constraint.min_tokens
    lengths = {shortest, shortest + 1, CANVAS - 1, CANVAS, CANVAS + 1, 3 * CANVAS}
    rooms = [(length, model) for length in sorted(lengths) if length >= shortest]
    # At the end of the context, which holds the canvases of a shortest answer, and not quite one more.
    needed = -(-shortest // CANVAS)
    rooms += [(2**20, random_model(len(PROMPT) + needed * CANVAS + rest)) for rest in (0, CANVAS - 1)]
    for length, writer in rooms:
        chosen = SamplerSettings.of(max_new_tokens=length, steps=2, seed=length, confidence_threshold=0.5)
        generation = generate(writer, PROMPT, chosen, constraint)
        answer = BYTES.text_of(generation.token_ids)
        try:
            is_valid = judge.is_valid(json.loads(answer))
        except ValueError:
            is_valid = False
        if not is_valid or generation.finish_reason != "stop" or len(generation.token_ids) > length:
            found.append(f"{length} tokens, {generation.finish_reason}: {answer!r}")
    return found


def check(rows: list[dict]) -> int:
    """Returns how many schemas were written; asserts that all answers are valid."""
    model, written, wrong = random_model(2**20), 0, []
    for number, row in enumerate(rows):
        if (found := problems(row["schema"], model)) is not None:
            written += 1
            wrong += [(row["source"], json.dumps(row["schema"])[:200], one) for one in found]
        if number % 100 == 99:
            print(f"{number + 1} schemas, {written} written, {len(wrong)} answers wrong", flush=True)
    print(f"{written} of {len(rows)} schemas written")
    assert not wrong, (len(wrong), wrong[:3])
    return written


@pytest.mark.slow
@pytest.mark.skipif(not SCHEMAS.exists(), reason=f"{SCHEMAS} is absent: the schemas are not part of this repository")
def test_every_answer_to_real_schemas_is_valid_at_every_length():
    rows = [json.loads(line) for line in SCHEMAS.read_text(encoding="utf-8").splitlines()][::EVERY]
    assert check(rows) > len(rows) / 2
