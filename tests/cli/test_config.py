"""The configuration file: what it sets, what wins over it, what is refused, and what `redraft config` shows."""

import json
import os

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from redraft.cli.config import config_keys, config_path, file_defaults
from redraft.cli.lazy import LazyCommand
from redraft.cli.main import app


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """Writes the lines of a file that REDRAFT_CONFIG names."""
    for name in ("REDRAFT_MODEL", "REDRAFT_THREADS"):
        # Set, not deleted, so that what a command sets is undone.
        monkeypatch.setenv(name, "")

    def write(*lines):
        path = tmp_path / "mine.toml"
        path.write_text("\n".join(lines))
        monkeypatch.setenv("REDRAFT_CONFIG", str(path))
        return path

    return write


def shown(run):
    code, out, _ = run("config", "--json")
    assert code == 0
    return {name: (one["value"], one["from"]) for name, one in json.loads(out)["values"].items()}


def steps_of(run, *arguments):
    code, out, err = run("generate", "hello", "--seed", 1, "--json", *arguments)
    assert code == 0, err
    return max(json.loads(out)["steps_per_canvas"])


def test_an_option_wins_over_the_environment_that_over_the_file_and_that_over_the_default(
    run, configure, checkpoint, tmp_path, monkeypatch
):
    configure(f"model = '{checkpoint}'", "steps = 2", "max_new_tokens = 4")
    assert steps_of(run) <= 2
    assert steps_of(run, "--steps", 1) == 1
    assert shown(run)["model"] == (str(checkpoint), "file")
    monkeypatch.setenv("REDRAFT_MODEL", str(tmp_path / "nowhere"))
    assert shown(run)["model"] == (str(tmp_path / "nowhere"), "REDRAFT_MODEL")
    code, _, err = run("generate", "hello")
    assert code == 2
    assert "nowhere" in err
    assert steps_of(run, "-m", checkpoint) <= 2


def test_threads_are_every_commands(run, configure, monkeypatch):
    configure("threads = 3")
    assert run("fields")[0] == 0
    assert os.environ["REDRAFT_THREADS"] == "3"
    monkeypatch.setenv("REDRAFT_THREADS", "2")
    assert run("fields")[0] == 0
    assert os.environ["REDRAFT_THREADS"] == "2"
    assert shown(run)["threads"] == (2, "REDRAFT_THREADS")
    assert run("fields", "--threads", 1)[0] == 0
    assert os.environ["REDRAFT_THREADS"] == "1"


def test_a_setting_of_training_that_has_the_name_of_a_key_is_not_meant(configure):
    configure("steps = 2", "device = 'cpu'", "precision = 'float32'")
    defaults = file_defaults()
    assert defaults["generate"]["steps"] == defaults["eval"]["rows"]["steps"] == 2
    assert defaults["serve"] == {"device": "cpu", "precision": "float32"}
    assert not {"train", "finetune"} & set(defaults)
    assert set(defaults["bench"]) == {"load", "batch", "cost"}


def test_every_key_is_an_option_of_the_commands_that_it_is_given_to_and_no_command_is_forgotten(configure):
    values = {name: key.choices[0] if key.choices else {str: "x", int: 1, float: 1.0}[key.type]
              for name, key in config_keys().items()}  # fmt: skip
    del values["entropy_limit"]  # goes with another rule of stopping
    values |= {"t_min": 0.5, "t_max": 0.5}
    configure(*(f"{name} = {json.dumps(value)}" for name, value in values.items()))
    defaults = file_defaults()

    def check(group, given):
        for name, command in group.commands.items():
            loaded = command.load() if isinstance(command, LazyCommand) else command
            if isinstance(loaded, TyperGroup):
                check(loaded, given.get(name, {}))
                continue
            options = {one.name for one in loaded.params}
            assert given.get(name, {}).keys() <= options, name
            variables = [one.name for one in loaded.params if one.envvar == "REDRAFT_MODEL"]
            assert given.get(name, {}).keys() >= set(variables), name

    check(get_command(app), defaults)
    assert set(values) == {"threads", *defaults["generate"], *defaults["serve"]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["stepz = 3"], "there is no key 'stepz'; there are model, device, precision, threads, max_new_tokens"),
        (["seed = 3"], "there is no key 'seed'; there are model"),
        (["[serve]", "port = 1"], "there is no key 'serve'; there are model"),
        (["steps = '3'"], "steps is '3', must be an integer"),
        (["steps = true"], "steps is True, must be an integer"),
        (["steps = 0"], "steps is 0, must lie between 1 and 4096"),
        (["model = 3"], "model is 3, must be a string"),
        (["model = ['a']"], "model is ['a'], must be a string"),
        (["device = 'tpu'"], "device is 'tpu', must be one of auto, cpu, cuda"),
        (["precision = 'fp4'"], "precision is 'fp4', must be one of auto, float32, bf16"),
        (["threads = 0"], "threads is 0, must lie between 1 and 1024"),
        (["port = 70000"], "port is 70000, must lie between 0 and 65535"),
        (["max_context = 0"], "max_context is 0, must be at least 1"),
        (["temperature = nan"], "temperature is nan, must be a finite number"),
        (["entropy_limit = 0.5"], "entropy_limit is 0.5, which requires stopping 'every_position_confident'"),
        (["steps = 1", "steps = 2"], "is not valid TOML: Cannot overwrite a value"),
        (["steps ="], "is not valid TOML: Invalid value"),
    ],
)
def test_what_is_wrong_in_it_is_refused_with_the_file_and_the_key(run, configure, lines, message):
    path = configure(*lines)
    for command in (("fields",), ("config",)):
        code, out, err = run(*command)
        assert (code, out) == (2, "")
        assert err.startswith(f"redraft: {path}{'' if message.startswith('is') else ':'} {message}")
        assert err.count("\n") == 1


def test_what_does_not_fit_an_option_says_that_it_comes_from_the_file(run, configure):
    configure("stopping = 'every_position_confident'", "entropy_limit = 0.5")
    code, _, err = run("generate", "hello", "--stopping", "stable_and_confident")
    assert code == 2
    assert "requires stopping 'every_position_confident' (entropy_limit: from the configuration file)" in err


def test_what_an_option_has_no_use_for_has_no_effect(run, configure, checkpoint, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "hello", "answer": "there"}\n')
    configure(f"model = '{checkpoint}'", "precision = 'float32'", "steps = 2", "max_new_tokens = 4")
    code, out, err = run("eval", "rows", rows, "--mode", "autoregressive", "--json")
    assert code == 0, err
    assert json.loads(out)["settings"] == {"mode": "autoregressive", "seed": 0, "max_new_tokens": 4}
    code, out, err = run("eval", "rows", rows, "--mode", "autoregressive", "--steps", 2)
    assert (code, out) == (2, "")
    assert "--mode autoregressive has no use for --steps: leave it out" in err
    # A server has its own model and precision.
    code, _, err = run("bench", "load", "--endpoint", "http://127.0.0.1:9/v1", "--requests", 1)
    assert code == 2
    assert "is the server running?" in err
    code, _, err = run("bench", "load", "--endpoint", "http://127.0.0.1:9/v1", "--precision", "float32")
    assert (code, err.count("the server's choice")) == (2, 1)


def test_the_file_is_found_where_the_user_keeps_such_files(run, tmp_path, monkeypatch):
    monkeypatch.delenv("REDRAFT_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert config_path() == tmp_path / ".config" / "redraft" / "config.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert config_path() == tmp_path / ".config" / "redraft" / "config.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    path = tmp_path / "xdg" / "redraft" / "config.toml"
    assert config_path() == path
    code, out, _ = run("config")
    assert code == 0
    assert out.startswith(f"{path} (there is no such file)\n")
    path.parent.mkdir(parents=True)
    path.write_text("port = 9000\n")
    assert shown(run)["port"] == (9000, "file")
    # A home that is not a folder, as that of a service's user, has no file.
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    assert shown(run)["port"] == (8000, "default")


def test_a_file_in_the_working_directory_is_not_read(run, tmp_path, monkeypatch):
    for name in ("redraft.toml", "config.toml", ".redraft.toml"):
        (tmp_path / name).write_text("port = 9000\n")
    monkeypatch.chdir(tmp_path)
    assert shown(run)["port"] == (8000, "default")


def test_a_file_in_another_encoding_is_refused(run, configure):
    path = configure("steps = 4")
    path.write_bytes(b"model = '\xff'")
    code, out, err = run("fields")
    assert (code, out, err) == (2, "", f"redraft: {path} is not UTF-8: byte 0xff at 9\n")


def test_a_file_that_is_named_and_not_there_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setenv("REDRAFT_CONFIG", str(tmp_path / "gone.toml"))
    code, out, err = run("fields")
    assert (code, out) == (2, "")
    assert err == f"redraft: REDRAFT_CONFIG names '{tmp_path / 'gone.toml'}', but there is no such file\n"


def test_help_and_version_do_not_need_a_file_that_is_right(run, configure):
    configure("stepz = 3")
    assert run("--help")[0] == run("--version")[0] == 0


def test_the_table_has_every_key_with_its_source(run, configure):
    path = configure("steps = 5")
    code, out, _ = run("config")
    assert code == 0
    assert out.splitlines()[0] == str(path)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line[0] == "│"]
    assert [row[0] for row in rows] == list(config_keys())
    assert ["steps", "5", "file"] in rows
    assert ["t_min", "", "checkpoint"] in rows
