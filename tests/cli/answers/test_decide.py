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
