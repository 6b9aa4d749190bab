"""`redraft train extract` end to end: the real recipe for a few steps, resumed, and its checkpoint used."""

import json

import pytest


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def test_a_run_goes_on_where_it_stood_and_its_checkpoint_generates(run, out, monkeypatch):
    monkeypatch.setattr("redraft.cli.train.VALIDATION_EXAMPLES", 2)
    monkeypatch.setattr("redraft.cli.train.VALIDATION_ANSWERS", 1)
    code, first, err = run("train", "extract", "--out", out, "--steps", 2, "--batch-size", 2)
    assert (code, err) == (0, "")
    assert "step 2/2  canvas" in first
    assert "tokens/s" in first
    assert "validation: exact 0.0%" in first
    summary = json.loads(first.splitlines()[-1])
    assert (summary["step"], summary["best"]["step"]) == (2, 2)
    assert summary["checkpoint"] == str(out / "step-0000002")
    assert "<svg" in (out / "report.html").read_text()
    code, second, _ = run("train", "extract", "--out", out, "--steps", 3, "--batch-size", 2)
    assert code == 0
    assert second.startswith("resuming at step 2 from")
    assert "step 3/3" in second
    assert sorted(path.name for path in out.glob("step-*")) == ["step-0000002", "step-0000003"]
    code, answer, err = run(
        "generate",
        "Extract name as JSON: Ana",
        "-m",
        out / "step-0000003",
        "--json",
        "--steps",
        2,
        "--max-new-tokens",
        4,
    )
    assert (code, err) == (0, "")
    assert len(json.loads(answer)["token_ids"]) <= 4


def test_a_report_of_nothing_is_refused(run, tmp_path):
    code, out, err = run("train", "report", tmp_path)
    assert (code, out) == (2, "")
    assert err == f"redraft: {tmp_path / 'log.jsonl'} has no progress yet: there is nothing to report\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", 0), "steps is 0, must be at least 1"),
        (("--batch-size", -1), "batch_size is -1, must be at least 1"),
        (("--accumulate", 17), "accumulate is 17, must be at most batch_size, 16"),
        (("--ema", 1), "ema is 1.0, must lie between 0 and 1"),
        (("--learning-rate", "nan"), "learning_rate is nan, must be above 0"),
        (("--minutes", 0), "--minutes is 0.0, must be above 0"),
    ],
)
def test_bad_options_are_refused_before_any_work(run, tmp_path, arguments, message):
    code, out, err = run("train", "extract", "--out", tmp_path / "run", *arguments)
    assert (code, out, err) == (2, "", f"redraft: {message}\n")
    assert not (tmp_path / "run").exists()
