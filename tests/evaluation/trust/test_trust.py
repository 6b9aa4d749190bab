"""The number of trust marks: fitted, measured, and made by the command for a checkpoint."""

import json
import math
import random

import pytest

import redraft
from redraft.cli.eval.trust import calibrate
from redraft.evaluation.trust.evidence import Evidence, TrustSet, gather, shipped_sets
from redraft.evaluation.trust.fitting import accuracy_at, calibration_error, fit, fit_logistic
from redraft.text.trust.calibration import ANSWER_FACTS, TRUST_FILE, read_calibration
from tests.fakes.checkpoints import tiny_checkpoint

PROMPTS = ["hello", "the dog", "where is it?", "Say it's fine", "Count to three", "the cat", "a dog", "hello dog"]


def test_a_fitted_model_says_how_often_cases_are_right():
    rng = random.Random(0)
    facts = [{"a": rng.gauss(0, 3), "b": rng.gauss(5, 0.1), "same": 7.0} for _ in range(4000)]
    chances = [1 / (1 + math.exp(1 - one["a"])) for one in facts]
    right = [rng.random() < chance for chance in chances]
    model = fit_logistic(facts, right, ("a", "b", "same"))
    assert model == fit_logistic(facts, right, ("a", "b", "same"))
    assert model.weights["a"] == pytest.approx(1, abs=0.15)
    assert model.weights["same"] == pytest.approx(0, abs=1e-9)
    said = [model.probability(one) for one in facts]
    assert calibration_error(said, right) < 0.02
    assert max(abs(p - chance) for p, chance in zip(said, chances, strict=True)) < 0.1


def test_calibration_error_and_accuracy_by_coverage():
    assert calibration_error([1.0, 1.0, 0.0, 0.0], [True, True, False, False]) == 0
    assert calibration_error([0.9, 0.9], [True, False]) == pytest.approx(0.4)
    # Of a bin the mean counts: what is said of single cases is no matter.
    assert calibration_error([0.71, 0.79, 0.3], [True, True, False]) == pytest.approx((0.5 + 0.3) / 3)
    said, right = [0.9, 0.8, 0.7, 0.6], [True, True, False, True]
    assert accuracy_at(said, right) == {1.0: 0.75, 0.95: 0.75, 0.9: 0.75, 0.8: pytest.approx(2 / 3), 0.5: 1.0}


def test_cases_that_are_all_right_are_refused():
    facts = dict.fromkeys(ANSWER_FACTS, 0.0)
    with pytest.raises(ValueError, match="all 2 are right"):
        fit([Evidence("x", number, False, True, facts, ()) for number in range(2)])


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A checkpoint, its rows, and the evidence that calibrating it left."""
    folder = tmp_path_factory.mktemp("calibrated")
    checkpoint = tiny_checkpoint(folder / "model")
    model = redraft.load(checkpoint)
    answers = ["another" if at % 3 else model.generate(one, seed=0).text for at, one in enumerate(PROMPTS)]
    rows = [{"prompt": prompt, "answer": answer} for prompt, answer in zip(PROMPTS, answers, strict=True)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return checkpoint, folder


def test_calibrate_is_resumed_and_answers_have_its_number(calibrated, capsys):
    checkpoint, folder = calibrated
    given = {"rows": folder / "rows.jsonl", "evidence": folder / "evidence.jsonl"}
    calibrate(str(checkpoint), **given)
    assert "no number for causal answers: all 8 are wrong" in capsys.readouterr().err
    first = (checkpoint / TRUST_FILE).read_bytes()
    evidence = (folder / "evidence.jsonl").read_text().splitlines(keepends=True)
    assert len(evidence) == 2 * len(PROMPTS)
    # A run that was killed left a line that is cut off.
    (folder / "evidence.jsonl").write_text("".join(evidence[:5]) + evidence[5][:20])
    calibrate(str(checkpoint), **given)
    assert (checkpoint / TRUST_FILE).read_bytes() == first
    model = redraft.load(checkpoint)
    assert model.calibration == read_calibration(checkpoint)
    # The tiny model ends no answer by itself.
    given = {"choice": ["hello", "good bye"], "seed": 0}
    result = model.generate("hello", **given)
    assert len(result.generation.log_probs) == len(result.generation.entropies)
    with redraft.Engine(model) as engine:
        (same,) = engine.generate_many(["hello"], **given)
    assert 0 < result.trust.probability < 1
    assert same.trust.probability == pytest.approx(result.trust.probability, abs=1e-4)
    assert model.generate_autoregressive("hello").trust.probability is None
    assert model.generate("hello", **given, is_scored=False).token_ids == result.token_ids


def test_evidence_of_something_else_is_refused(calibrated, tmp_path):
    checkpoint, _ = calibrated
    (tmp_path / "bad").write_text('{"way": 1}\n')
    with pytest.raises(ValueError, match="line 1 is not evidence"):
        gather(redraft.load(checkpoint), [TrustSet("x", [], lambda *_: {})], "diffusion", tmp_path / "bad")


def test_a_set_without_cases_for_tuning_is_for_testing_alone():
    tuned, tested = ({one.name for one in shipped_sets("wide", is_tuning=tuning)} for tuning in (True, False))
    assert tested - tuned == {"wide formats"}
    assert tuned < tested
