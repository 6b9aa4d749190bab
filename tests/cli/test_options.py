"""The options that commands share."""

import re

import pytest

import redraft


def test_every_sampler_setting_is_an_option(run):
    code, help, _ = run("generate", "--help")
    assert code == 0
    for setting in redraft.SETTINGS:
        assert f"--{setting.name.replace('_', '-')} <{setting.type.__name__}>" in help
        assert re.sub(r"\s+", " ", setting.help) in re.sub(r"\s+", " ", help)


@pytest.mark.parametrize(
    "given",
    [
        ("--acceptance", "linear_quota"),
        ("--stopping", "every_position_confident", "--entropy-limit", "0.5"),
        ("--stability-threshold", "0", "--confidence-threshold", "0.9"),
        ("--index", "3"),
    ],
)
def test_settings_reach_the_sampler(run, checkpoint, given):
    names = [name.removeprefix("--").replace("-", "_") for name in given[::2]]
    values = [value if value.isidentifier() else float(value) if "." in value else int(value) for value in given[1::2]]
    model = redraft.load(checkpoint)
    expected = model.generate("a b", seed=1, max_new_tokens=8, **dict(zip(names, values, strict=True)))
    code, out, _ = run("generate", "a b", "-m", checkpoint, "--seed", 1, "--max-new-tokens", 8, "--json", *given)
    assert code == 0
    assert f'"steps_per_canvas": {list(expected.generation.steps_per_canvas)}' in out
    assert f'"token_ids": {list(expected.token_ids)}' in out


def test_a_number_of_a_rule_that_is_not_chosen_is_refused(run, checkpoint):
    code, _, err = run("generate", "a", "-m", checkpoint, "--entropy-limit", "0.5")
    assert (code, err) == (
        2,
        "redraft: entropy_limit is 0.5, which requires stopping 'every_position_confident'\n",
    )
