"""The plan of a fine-tuning run: what follows from the number of rows, and that what is given wins."""

import pytest

from redraft.training.plan import ANSWER_COST, MAX_VALIDATION_SHARE, describe_plan, plan_settings


@pytest.mark.parametrize("rows", [1, 10, 30, 200, 1000, 10_000, 1_000_000])
def test_more_rows_take_more_steps_but_each_is_read_less_often(rows):
    few, more = (plan_settings(count, held_out=0) for count in (rows, 4 * rows))
    assert few.steps < more.steps <= 4 * few.steps
    read, read_of_more = few.steps * few.batch_size / rows, more.steps * more.batch_size / (4 * rows)
    assert read > read_of_more or (rows >= 1000 and read == read_of_more == 1)


def test_thirty_rows_are_read_often_enough_to_be_learned():
    plan = plan_settings(24, held_out=6)
    assert plan.steps * plan.batch_size >= 10 * 24
    assert (plan.validate_every, plan.validation_answers) == (plan.steps, 6)


@pytest.mark.parametrize("held_out", [1, 6, 10, 50, 128])
@pytest.mark.parametrize("rows", [20, 24, 190, 950, 20_000])
def test_validation_costs_at_most_a_tenth(rows, held_out):
    plan = plan_settings(rows, held_out=held_out)
    # One is always made at the end, besides those that are due.
    validations = -(-plan.steps // plan.validate_every)
    answers = validations * plan.validation_answers
    assert answers * ANSWER_COST <= MAX_VALIDATION_SHARE * plan.steps * plan.batch_size
    assert 1 <= plan.validation_answers <= plan.validation_examples <= held_out
    # Not more often on fewer rows.
    assert validations == 1 or plan.validation_answers == held_out >= 50


def test_what_is_given_wins():
    given = {
        "steps": 7, "batch_size": 4, "learning_rate": 3e-4, "unrolling": 0.5, "matrix_factor": None,
        "warmup_steps": 0, "validate_every": 1, "validation_examples": 9, "validation_answers": 5, "patience": 2,
    }  # fmt: skip
    plan = plan_settings(100, held_out=20, **given)
    assert {name: getattr(plan, name) for name in given} == given
    assert plan_settings(100, held_out=20, validate_every=0).validate_every == 0
    # A run of a step or two still validates, once.
    assert (plan_settings(100, held_out=20, steps=1).validate_every, plan.decay_share) == (1, 0.6)


def test_steps_follow_from_epochs_if_those_are_given():
    assert plan_settings(100, held_out=0, epochs=3, batch_size=16).steps == 19
    assert plan_settings(100, held_out=0, epochs=3, batch_size=4).steps == 75
    # Replayed examples are not of the rows.
    assert plan_settings(100, held_out=0, epochs=3, batch_size=4, replay=0.5).steps == 150
    assert plan_settings(100, held_out=0, epochs=3, steps=7).steps == 7


def test_numbers_out_of_range_are_refused():
    for epochs in (0, float("nan"), 1e308):
        with pytest.raises(ValueError, match=r"epochs is .*, must be above 0 and at most 1,000,000"):
            plan_settings(100, held_out=0, epochs=epochs)
    for needs in ("validate_every", "patience"):
        message = "there are no rows to validate on: give others to validate on, or at least 20 different prompts"
        with pytest.raises(ValueError, match=message):
            plan_settings(10, held_out=0, **{needs: 5})
    for name, value in (("batch_size", 1.5), ("steps", 1.5), ("validation_examples", 0)):
        with pytest.raises(ValueError, match=rf"{name} is {value}, must be"):
            plan_settings(100, held_out=20, **{name: value})


def test_the_plan_is_told_in_a_line():
    plan = plan_settings(24, held_out=6, steps=60, validate_every=30, validation_examples=6, validation_answers=6)
    told = describe_plan(24, plan, validated=6, replay="none replayed")
    head = "24 rows: 60 steps of 8 examples, rate 0.0006, none replayed"
    assert told == f"{head}, validation on 6 rows every 30 steps"
    fewer = plan_settings(24, held_out=6, steps=60, validate_every=30, validation_examples=6, validation_answers=2)
    assert describe_plan(24, fewer, validated=6, replay="none replayed").endswith(
        "on 6 rows, answering 2, every 30 steps"
    )
    once = plan_settings(24, held_out=6, steps=60)
    assert describe_plan(24, once, validated=6, replay="none replayed") == f"{head}, validation on 6 rows at the end"
    never = plan_settings(24, held_out=6, steps=60, validate_every=0)
    assert describe_plan(24, never, validated=6, replay="none replayed") == f"{head}, no validation"
    assert "at least 20 different prompts" in describe_plan(9, never, validated=0, replay="none replayed")
