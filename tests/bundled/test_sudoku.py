"""The recipe of the Sudoku model: a step of it, its checkpoint, and its evaluation with the given cells pinned."""

import dataclasses
import json
import math

import pytest
import torch

import redraft
from redraft.bundled.data.sudoku.tokens import cell_token, digit_token
from redraft.bundled.sudoku import MODEL, SAMPLER, initialize_cells, sudoku
from redraft.evaluation.cases import Case
from redraft.evaluation.evaluate import evaluate, summarise
from redraft.evaluation.sudoku import GRADES, PinnedSudoku, clues_of, score_sudoku, sudoku_cases
from redraft.model.transformer import Transformer
from redraft.training import run_recipe
from redraft.weights.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one step."""
    recipe = sudoku(
        steps=1, batch_size=2, canvases_per_example=2, validate_every=1, validation_examples=1, validation_answers=1
    )
    lines: list[str] = []
    return run_recipe(recipe, tmp_path_factory.mktemp("sudoku") / "run", report=lines.append), lines


def test_a_short_run_ends_in_a_checkpoint(run):
    result, lines = run
    assert Checkpoint.open(result.checkpoint).config == MODEL
    assert any("validation: exact" in line for line in lines)
    assert redraft.load(result.checkpoint).defaults == SAMPLER
    assert 1.0e6 < sum(map(math.prod, MODEL.parameter_shapes().values())) < 1.5e6


def test_the_given_cells_stay_what_they_are_whatever_the_model_would_write(run):
    model = redraft.load(run[0].checkpoint)
    cases = sudoku_cases(1)
    outcomes = evaluate(PinnedSudoku(model, {"seed": 0, "steps": 2}), cases, score_sudoku)
    for outcome in outcomes:
        clues = {at: int(clue) for at, clue in enumerate(clues_of(outcome.case.prompt)) if clue != "."}
        assert {at: outcome.response.token_ids[at] for at in clues} == {at: digit_token(d) for at, d in clues.items()}
    assert summarise(outcomes)["groups"].keys() == GRADES.keys()
    for group in summarise(outcomes)["groups"].values():
        assert group["exact"] == 0
        assert 1 <= group["steps_per_canvas"] <= 2


def test_a_model_without_tokens_of_digits_is_refused(checkpoint):
    subject = PinnedSudoku(redraft.load(checkpoint), {})
    with pytest.raises(ValueError, match=r"--pinned: .* has no token for '.' alone"):
        subject.check(Case("Solve this Sudoku.\n€" + "." * 80, "").prompt)


def test_cells_begin_with_what_they_have_in_common():
    model = Transformer(MODEL)
    initialize_cells(model, 0)
    rows = model.embed_tokens.weight

    def likeness(one: int, other: int) -> float:
        return torch.cosine_similarity(rows[cell_token(one, 0)], rows[cell_token(other, 0)], dim=0).item()

    # Of one row and box, of one row, and of neither; all share that they are open.
    assert likeness(0, 1) > likeness(0, 8) > likeness(0, 40) > 0
    assert rows.std().item() == pytest.approx(MODEL.hidden_size**-0.5, rel=0.1)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="batch_size is 0"):
        sudoku(batch_size=0)
    assert dataclasses.replace(sudoku().settings, steps=1).canvases_per_example == 8
    assert json.dumps(dict(sudoku().identity)) == '{"recipe": "sudoku"}'
