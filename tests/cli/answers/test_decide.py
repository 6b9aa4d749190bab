"""`redraft decide`: what is printed, and the options that a decision has no use for."""

import json


def test_a_decision_is_printed_and_settings_without_use_are_refused(run, checkpoint):
    asked = ("decide", "Pay now.", "--ask", "How urgent?", "--level", "can wait", "--level", "now", "-m", checkpoint)
    code, out, _ = run(*asked, "--seed", 1, "--json")
    assert code == 0
    told = json.loads(out)["answer"]
    assert (set(told["probabilities"]), told["label"] in told["probabilities"]) == ({"0", "1"}, True)
    code, out, err = run(*asked, "--steps", 3, "--max-new-tokens", 5)
    assert (code, out) == (2, "")
    assert "a decision has no use for" in err
    assert "--steps" in err
    assert "--max-new-tokens" in err


def test_a_decision_that_says_little_is_told_on_standard_error_and_an_empty_text_is_refused(run):
    asked = ("decide", "yes it was paid", "--ask", "Is it paid?")
    code, out, err = run(*asked)
    assert code == 0
    assert "log mass" in out
    (mass,) = err.splitlines()
    assert mass.startswith("redraft: warning: the model would hardly write any of these labels here (log mass -")
    code, out, err = run(*asked, "--json", "--quiet")
    assert (code, err) == (0, "")
    assert len(json.loads(out)["answer"]["warnings"]) == 1
    code, out, err = run("decide", " ", "--ask", "Is it paid?")
    assert (code, out) == (2, "")
    assert "the text is empty" in err


def test_labels_and_levels_that_do_not_go_together_are_refused(run, tmp_path):
    for given, message in (
        (("--ask", "Which?", "--label", "a", "--level", "x"), "give either --label or --level, not both"),
        (("--questions", tmp_path / "no.json", "--label", "a"), "--label and --level belong to --ask: name those of"),
    ):
        code, out, err = run("decide", "I am Bob.", *given)
        assert (code, out) == (2, "")
        assert message in err
