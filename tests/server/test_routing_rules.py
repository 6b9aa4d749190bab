"""The router's rules: what a file may say, and which rule a request meets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from redraft.server.routing.request import CHAT_PATH, COMPLETIONS_PATH, RESPONSES_PATH, choose, read_request
from redraft.server.routing.rules import RoutingRule, Way, read_rules

WAYS = """
[ways.here]
mode = "auto"
[ways.far]
endpoint = "http://localhost:9/v1"
"""


def rules(tmp_path, text):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return read_rules(path)


def chat(text, **fields):
    return {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}], **fields}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[[rules", "is not valid TOML"),
        ("", "at least one"),
        ("[way.x]", "no table 'way'; there are [ways.NAME] and [[rules]]"),
        ('rules = [{name = "a", to = "b"}]', "rule 'a', to is 'b', which is not a way of the file; it has none"),
        (
            'rules = [{name = "a", to = "near"}]' + WAYS,
            "to is 'near', which is not a way of the file; there are 'here', ",
        ),
        ('rules = [{to = "here"}]' + WAYS, "rule 1: name is missing"),
        ('rules = ["x"]' + WAYS, "rule 1: must be a table, is 'x'"),
        ('rules = [{name = "a b", to = "here"}]' + WAYS, "rule 'a b', name is 'a b', must be 1 to 64 letters"),
        (
            'rules = [{name = "a", to = "here", wrods = ["x"]}]' + WAYS,
            "rule 'a': has no key 'wrods'; it may have name, ",
        ),
        ('rules = [{name = "a", to = "here", words = "x"}]' + WAYS, "rule 'a', words is 'x', must be"),
        ('rules = [{name = "a", to = "here", words = []}]' + WAYS, "rule 'a', words is [], "),
        ('rules = [{name = "a", to = "here", pattern = "("}]' + WAYS, "pattern is '(', is not a regular expression"),
        ('rules = [{name = "a", to = "here", min_characters = -1}]' + WAYS, "min_characters is -1, must be greater"),
        (
            'rules = [{name = "a", to = "here", min_characters = 9, max_characters = 3}]' + WAYS,
            "rule 'a', min_characters is 9, above max_characters 3",
        ),
        (
            'rules = [{name = "a", to = "here"}, {name = "b", to = "far"}]' + WAYS,
            "rule 'b': is never reached, since rule 'a' before it has no condition",
        ),
        (
            'rules = [{name = "a", to = "here", constraint = true}, {name = "a", to = "far"}]' + WAYS,
            "rule 'a': two rules have this name",
        ),
        ('rules = [{name = "a", to = "x"}]\n[ways.x]\nmode = "fast"', "way 'x', mode is 'fast', must be 'diffusion', "),
        (
            'rules = [{name = "a", to = "x"}]\n[ways.x]\nendpoint = "ftp://a"',
            "way 'x', endpoint is 'ftp://a', must be like http://",
        ),
        (
            'rules = [{name = "a", to = "x"}]\n[ways.x]\nendpoint = "http://a/v1"\nmode = "auto"',
            "way 'x', mode is 'auto': it needs no endpoint",
        ),
        (
            'rules = [{name = "a", to = "x"}]\n[ways.x]\nkey_env = "HOME"',
            "way 'x', key_env is 'HOME': it needs an endpoint",
        ),
        (
            'rules = [{name = "a", to = "x"}]\n[ways.x]\nendpoint = "http://a/v1"\nkey_env = "NO_SUCH_KEY"',
            "key_env is 'NO_SUCH_KEY': the environment has no such variable",
        ),
        (
            'rules = [{name = "a", to = "x"}]\n[ways.x]\nmin_trust = 0.5',
            "min_trust is 0.5: it needs a fallback to go to",
        ),
        (
            'rules = [{name = "a", to = "x"}]\n[ways.x]\nmin_trust = 1.5',
            "min_trust is 1.5, must be less than or equal to 1",
        ),
        (
            'rules = [{name = "a", to = "x"}]\n[ways.x]\nfallback = "y"\non_failure = true',
            "fallback is 'y', which is not a way",
        ),
        (
            'rules = [{name = "a", to = "x"}]\n[ways.x]\nfallback = "here"' + WAYS,
            "fallback is 'here': say when, with min_trust",
        ),
        (
            'rules = [{name = "a", to = "x"}]\n[ways.x]\nendpoint = "http://a/v1"\nfallback = "here"\nmin_trust = 0.5'
            + WAYS,
            "only redraft's servers say how far they trust an answer",
        ),
        (
            'rules = [{name = "a", to = "x"}]\n[ways.x]\nfallback = "y"\non_failure = true\n'
            '[ways.y]\nfallback = "x"\nmin_trust = 0.5',
            "way 'x', fallback: the ways go in a circle, x to y to x",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_told_with_the_way_out(tmp_path, text, wrong):
    with pytest.raises(ValueError, match=r"rules\.toml: ") as error:
        rules(tmp_path, text)
    assert wrong in str(error.value)


def test_files_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.toml: cannot be read"):
        read_rules(tmp_path / "none.toml")


def test_rules_are_checked_against_the_server(tmp_path):
    made = rules(
        tmp_path,
        'rules = [{name = "a", to = "x"}]\n[ways.x]\nadapter = "mails"\nmin_trust = 0.5\nfallback = "far"' + WAYS,
    )
    with pytest.raises(ValueError, match="adapter is 'mails', which is not loaded; there are 'notes'"):
        made.check_adapters(["notes"])
    made.check_adapters(["mails"])
    with pytest.raises(ValueError, match="way 'far', endpoint is 'http://localhost:9/v1', this server's own address"):
        made.check_address("127.0.0.1", 9)
    with pytest.raises(ValueError, match="own address"):
        made.check_address("0.0.0.0", 9)
    made.check_address("127.0.0.1", 8)
    with pytest.raises(ValueError, match=r"min_trust is 0\.5, but the model has no calibration"):
        made.check_trust(is_calibrated=False)
    made.check_trust(is_calibrated=True)


EVERY_CONDITION = (
    """
rules = [
    {name = "asked", to = "far", models = ["large"]},
    {name = "typos", to = "here", words = ["Fix  the typos"]},
    {name = "long", to = "far", min_characters = 1000},
    {name = "form", to = "here", constraint = true, max_characters = 100},
    {name = "date", to = "here", pattern = '\\d{4}-\\d\\d'},
]
"""
    + WAYS
)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT_PATH, chat("Say it", model="large"), "asked: the model asked for is 'large'"),
        (CHAT_PATH, chat("fix the\nTYPOS: teh"), "typos: the prompt has 'Fix  the typos'"),
        (CHAT_PATH, chat([{"type": "text", "text": "fix the typos"}]), "typos: the prompt has 'Fix  the typos'"),
        (CHAT_PATH, chat("x" * 991), "long: it has 1000 characters, at least 1000"),
        (CHAT_PATH, chat("x" * 990), None),
        (
            CHAT_PATH,
            chat("x", response_format={"type": "json_object"}),
            "form: it has 10 characters, at most 100, its answer is held to a form",
        ),
        (CHAT_PATH, chat("x", response_format={"type": "text"}), None),
        (CHAT_PATH, chat("x" * 200, guided_regex="a"), None),
        (
            CHAT_PATH,
            chat("x", tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="required"),
            "form: it has 10 characters, at most 100, its answer is held to a form",
        ),
        (CHAT_PATH, chat("x", tools=[{"type": "function", "function": {"name": "f"}}]), None),
        (CHAT_PATH, chat("on 2024-03-01"), r"date: the prompt matches '\\d{4}-\\d\\d'"),
        (CHAT_PATH, {"messages": [{"role": "assistant", "content": "fix the typos"}]}, None),
        (CHAT_PATH, {"messages": 3, "model": []}, None),
        (COMPLETIONS_PATH, {"prompt": ["Fix the typos: a", "fix the typos"]}, "typos: the prompt has 'Fix  the typos'"),
        (COMPLETIONS_PATH, {"prompt": ["Fix the typos: a", "b"]}, None),
        (COMPLETIONS_PATH, {"prompt": [1, 2, 3]}, None),
        (RESPONSES_PATH, {"input": "x", "instructions": "y" * 999}, "long: it has 1000 characters, at least 1000"),
        (
            RESPONSES_PATH,
            {"input": [{"role": "user", "content": "x"}], "text": {"format": {"type": "json_object"}}},
            "form: it has 1 characters, at most 100, its answer is held to a form",
        ),
    ],
)  # fmt: skip
def test_the_first_rule_whose_conditions_all_hold_is_taken(tmp_path, path, body, expected):
    found = choose(rules(tmp_path, EVERY_CONDITION), read_request(path, body))
    assert (found and f"{found[0].name}: {found[1]}") == expected


def test_without_rules_nothing_of_the_router_is_loaded(tmp_path):
    """Shown to be what the same program loads with rules, so that it could fail."""
    path = tmp_path / "rules.toml"
    path.write_text('rules = [{name = "a", to = "here"}]' + WAYS)
    program = """
import sys
from pathlib import Path
from pathlib import Path
from redraft.server import lifecycle
from redraft.server.settings import ServerSettings
rules = None
if len(sys.argv) > 1:
    from redraft.server.routing.rules import read_rules
    rules = read_rules(Path(sys.argv[1]))
lifecycle.ModelServer(ServerSettings(port=0, rules=rules), lambda: None)
print([name for name in sys.modules if "routing" in name and "redraft" in name])
"""

    def loaded(*arguments):
        return subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, env=os.environ
        ).stdout.strip()

    assert loaded() == "[]"
    assert "redraft.server.routing.router" in loaded(str(path))


def test_the_rules_of_the_documentation_are_valid(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/routing.md").read_text(encoding="utf-8")
    monkeypatch.setenv("LARGE_KEY", "a key")
    made = rules(tmp_path, page.split("```toml\n")[1].split("```")[0])
    assert [rule.to for rule in made.rules] == ["large", "mails", "careful", "canvas"]
    for kind in (Way, RoutingRule):
        assert all(f"`{name}`" in page for name in kind.model_fields.keys() - {"name", "to"})
