"""Training settings: the learning rate over a run, and what is refused."""

import math

import pytest

from redraft.training.settings import TrainingSettings


def settings(**changes) -> TrainingSettings:
    return TrainingSettings(**{"steps": 1000, "batch_size": 2, "learning_rate": 0.5} | changes)


def test_steps_that_distil_come_after_the_others():
    settings = TrainingSettings(steps=10, batch_size=1, learning_rate=1.0, warmup_steps=0, distill_steps=4)
    rates = [settings.learning_rate_at(step) for step in range(9, 14)]
    assert rates == pytest.approx([1 / 3, 0.3, 0.225, 0.15, 0.075])
    assert settings.total_steps == 14
    assert settings.noise_at(9)["unrolling_from_noise"] == 0
    assert settings.noise_at(10)["unrolling_from_noise"] == 1
    with pytest.raises(ValueError, match="patience and distill_steps do not go together"):
        TrainingSettings(steps=1, batch_size=1, learning_rate=1.0, distill_steps=1, patience=1, validate_every=1)


def test_rises_stays_and_falls():
    run = settings(warmup_steps=100, decay_share=0.3)
    rates = [run.learning_rate_at(step) / 0.5 for step in range(1000)]
    assert rates[:4] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert rates[98] == pytest.approx(0.99)
    assert rates[99:701] == [1.0] * 602
    assert rates[701] == pytest.approx(299 / 300)
    assert rates[850] == pytest.approx(0.5)
    assert rates[-2:] == pytest.approx([2 / 300, 1 / 300])


def test_no_step_is_wasted_on_rate_zero():
    run = settings(warmup_steps=100, decay_share=1.0)
    assert all(run.learning_rate_at(step) > 0 for step in range(1000))


def test_without_warmup_and_decay_it_is_constant():
    run = settings(warmup_steps=0, decay_share=0.0)
    assert {run.learning_rate_at(step) for step in range(1000)} == {0.5}


def test_a_longer_run_agrees_until_the_shorter_one_decays():
    short, long = settings(steps=1000), settings(steps=4000)
    assert [short.learning_rate_at(step) for step in range(700)] == [long.learning_rate_at(step) for step in range(700)]
    assert short.learning_rate_at(750) < long.learning_rate_at(750)


def test_short_runs_take_the_smaller_of_rise_and_fall():
    run = settings(steps=10, warmup_steps=8, decay_share=0.5)
    assert [run.learning_rate_at(step) / 0.5 for step in range(10)] == pytest.approx(
        [1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 4 / 5, 3 / 5, 2 / 5, 1 / 5]
    )


WHOLE = (
    *("steps", "batch_size", "canvases_per_example", "accumulate", "log_every", "row_block"),
    *("validation_examples", "validation_answers"),
)


@pytest.mark.parametrize(
    ("name", "bad", "limit"),
    [
        *((name, bad, "at least 1") for name in WHOLE for bad in (0, -1)),
        *(
            (name, bad, "above 0")
            for name in ("learning_rate", "matrix_factor", "vector_factor", "clip_norm", "checkpoint_minutes")
            for bad in (0, -1e-9, math.nan)
        ),
        *(
            (name, bad, "between 0 and 1")
            for name in (
                "decay_share",
                "self_conditioning",
                "unrolling",
                "unrolling_from_noise",
                "unrolling_shown",
                "prompt_weight",
            )
            for bad in (-0.01, 1.01, math.nan)
        ),
    ],
)
def test_bad_values(name, bad, limit):
    with pytest.raises(ValueError, match=rf"^{name} is {bad}, must (be|lie) {limit}$"):
        settings(**{name: bad})


@pytest.mark.parametrize(
    "bad",
    [
        {"patience": 3},
        {"compile": True, "gradient_checkpointing": True},
        {"warmup_steps": -5},
        {"betas": (2, -1)},
        {"weight_decay": -1},
        {"learning_rate": float("inf")},
        {"steps": 1.5},
    ],
)
def test_training_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        TrainingSettings(**({"steps": 5, "batch_size": 2, "learning_rate": 0.1} | bad))
