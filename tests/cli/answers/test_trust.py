"""The number of trust on the command line: a line where it is low, --min-trust, and rows of low trust."""

import csv
import json
import shutil

import pytest

import redraft
from redraft.cli.answers.answer_warnings import say_warnings
from redraft.text.trust.calibration import (
    ANSWER_FACTS,
    VALUE_FACTS,
    Calibration,
    LogisticModel,
    TrustModels,
    write_calibration,
)
from redraft.text.trust.evidence import Trust, ValueTrust

PROMPTS = ("hello", "the dog", "where is it?")


@pytest.fixture
def calibrated(checkpoint, tmp_path):
    """A checkpoint whose answers are the less trusted the longer their prompts."""
    folder = shutil.copytree(checkpoint, tmp_path / "calibrated")
    weights = dict.fromkeys(ANSWER_FACTS, 0.0) | {"prompt_tokens": -4.0}
    answers = LogisticModel(9.0, weights)
    models = TrustModels(answers, LogisticModel(0.0, dict.fromkeys(VALUE_FACTS, 0.0)), 9)
    write_calibration(folder, Calibration({"diffusion": models}, ("x",)))
    return folder


def probability(run, model, prompt: str) -> float:
    return json.loads(run("generate", prompt, "-m", model, "--seed", 3, "--json")[1])["trust"]["probability"]


def test_an_answer_of_low_trust_is_told_and_ends_with_3(run, calibrated):
    found = probability(run, calibrated, PROMPTS[1])
    assert 0 < found < 0.8
    code, out, err = run("generate", PROMPTS[1], "-m", calibrated, "--seed", 3, "--min-trust", 0.9)
    assert (code, bool(out)) == (3, True)
    assert f"low trust: this answer is right with a probability of {found:.0%}" in err
    assert run("generate", PROMPTS[1], "-m", calibrated, "--seed", 3, "--min-trust", found / 2)[0] == 0
    assert "low trust" not in run("generate", PROMPTS[1], "-m", calibrated, "--seed", 3, "--quiet")[2]


def test_rows_of_low_trust_go_into_a_file_of_their_own(run, calibrated, tmp_path):
    found = [probability(run, calibrated, prompt) for prompt in PROMPTS]
    least = (min(found) + max(found)) / 2
    rows, output = tmp_path / "rows.jsonl", tmp_path / "answers.csv"
    rows.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    asked = ("generate", "--rows", rows, "-m", calibrated, "--seed", 3, "--min-trust", least)
    code, _, err = run(*asked, "--output", output)
    assert code == 3
    low = tmp_path / "answers.low-trust.csv"
    assert f"{low}: {sum(one < least for one in found)} of 3 answers are trusted less" in err.replace(" is ", " are ")
    for path, wanted in ((output, False), (low, True)):
        lines = list(csv.DictReader(path.read_text().splitlines()))
        assert [line["prompt"] for line in lines] == [
            prompt for prompt, one in zip(PROMPTS, found, strict=True) if (one < least) is wanted
        ]
        assert all((float(line["trust"]) < least) is wanted for line in lines)
    code, _, err = run(*asked)
    assert code == 2
    assert "--min-trust of --rows requires --output FILE" in err


def test_how_many_rows_are_of_low_trust_is_told(run, calibrated, tmp_path):
    found = [probability(run, calibrated, prompt) for prompt in PROMPTS]
    rows = tmp_path / "rows.txt"
    rows.write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    code, _, err = run("generate", "--rows", rows, "-m", calibrated, "--seed", 3)
    low = sum(one < 0.9 for one in found)
    assert (code, low > 0) == (0, True)
    assert f'redraft: {low} of 3 answers are trusted less than 0.9: see "trust" there\n' in err.replace(" is ", " are ")


def test_rows_of_unknown_trust_are_told_apart_and_warnings_in_the_file_that_has_them(
    run, calibrated, tmp_path, monkeypatch
):
    plain = redraft.Result.to_json

    def to_json(result):
        told = plain(result) | {"warnings": []}
        return told if told["trust"]["probability"] > 0.01 else told | {"trust": {}, "warnings": ["odd"]}

    monkeypatch.setattr(redraft.Result, "to_json", to_json)
    rows, output = tmp_path / "rows.txt", tmp_path / "answers.csv"
    rows.write_text("".join(f"{prompt}\n" for prompt in ("hello", "word " * 20)))
    asked = ("generate", "--rows", rows, "-m", calibrated, "--seed", 3, "--min-trust", 1e-9, "--output", output)
    code, _, err = run(*asked)
    low = tmp_path / "answers.low-trust.csv"
    assert code == 3
    assert err == (
        f"redraft: {low}: 0 of 2 answers are trusted less than 1e-09, and 1 more has no number\n"
        f'redraft: {low}: 1 of 1 answer has a warning: see "warnings" there\n'
    )
    assert [line["warnings"] for line in csv.DictReader(low.read_text().splitlines())] == ["odd"]


@pytest.mark.parametrize(("least", "message"), [(0, "must be above 0"), (1.5, "at most 1"), (0.5, "is not calibrated")])
def test_a_least_trust_that_nobody_can_tell_is_refused(run, checkpoint, least, message):
    code, out, err = run("generate", "hello", "-m", checkpoint, "--min-trust", least)
    assert (code, out) == (2, "")
    assert message in err


def test_a_value_of_low_trust_is_told_of_where_the_answer_is_trusted(capsys):
    values = tuple(
        ValueTrust(path=(name,), places=(), probability=one) for name, one in (("shop", 0.677), ("sum", 0.99))
    )
    say_warnings((), Trust(probability=0.904, values=values), quiet=False)
    assert capsys.readouterr().err == "redraft: low trust: the value of shop is right with a probability of 67%\n"
    say_warnings((), Trust(probability=0.904, values=values[1:]), quiet=False)
    say_warnings((), Trust(values=values), quiet=False)
    say_warnings((), Trust(probability=0.904, values=values), quiet=True)
    assert capsys.readouterr().err == ""
