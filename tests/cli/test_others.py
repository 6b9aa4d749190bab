import importlib.util
import io
import json
import os
import subprocess
import sys

import pytest

from tests.fakes.checkpoints import CARD, tiny_checkpoint


def test_info_of_the_released_shape_needs_no_download(run):
    code, out, _ = run("info", "26b-a4b", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["parameters"] == 25_250_986_812
    assert round(facts["active_parameters"] / 1e9, 1) == 3.8
    assert facts["weight_bytes"].keys() == facts["fits"].keys() == {"float32", "bfloat16", "int8", "int4"}
    assert facts["kv_bytes_per_1000_tokens"] == 1000 * 5 * 2 * 2 * 512 * 2
    code, out, _ = run("info", "26b-a4b")
    assert code == 0
    assert "25.2 B in all" in out
    assert "3.8 B per token" in out


def test_info_of_a_folder(run, checkpoint):
    code, out, _ = run("info", checkpoint)
    assert code == 0
    assert "fits" in out


def test_examples_are_commands_that_run(run, checkpoint):
    code, out, _ = run("examples", "-m", checkpoint)
    assert code == 0
    assert out.startswith(f"{CARD['purpose']}\n")
    assert out.endswith(f"\n{CARD['limits']}\n")
    assert f"redraft generate --model {checkpoint} 'Count to three'" in out
    code, out, _ = run("examples", 2, "-m", checkpoint, "--seed", 1)
    assert code == 0
    assert out.startswith("Count to three\n")
    code, _, err = run("examples", 3, "-m", checkpoint)
    assert (code, err) == (2, "redraft: there is no example 3; there are 1 to 2\n")


def test_examples_end_with_the_forms_of_all_prompts(run, tmp_path):
    forms = ["Extract {fields} as JSON: {text}", "Write the date as YYYYMMDD: {text}"]
    (tmp_path / "redraft.json").write_text(json.dumps(CARD | {"prompt_forms": forms}))
    code, out, _ = run("examples", "-m", tmp_path)
    assert code == 0
    assert "\n".join(["The forms of all prompts that it was trained on:", *forms, ""]) in out
    (tmp_path / "redraft.json").write_text(json.dumps(CARD | {"open_wording": True, "prompt_forms": ["a {text}"]}))
    assert "a {text}" not in run("examples", "-m", tmp_path)[1]


def test_fields_are_listed_by_kind_of_text(run, checkpoint, tmp_path):
    fields = {"payment": ["name", "amount"], "log line": ["level", "status"]}
    (tmp_path / "redraft.json").write_text(json.dumps(CARD | {"fields": fields}))
    code, out, _ = run("fields", "-m", tmp_path)
    assert code == 0
    assert out.endswith("\n\npayment   name, amount\nlog line  level, status\n")
    code, _, err = run("fields", "-m", checkpoint)
    assert (code, err) == (2, f"redraft: {checkpoint} lists no fields\n")
    code, out, _ = run("fields")
    assert code == 0
    assert out.startswith("Name any field in your own words")
    assert "payment      name, amount, date, iban, invoice_id, company, email\n" in out
    (tmp_path / "redraft.json").write_text(json.dumps(CARD | {"open_wording": True}))
    code, out, _ = run("fields", "-m", tmp_path)
    assert (code, out.count("\n")) == (0, 1)


@pytest.mark.parametrize("asked", ["/help", "/?"])
def test_chat_tells_its_commands(run, checkpoint, monkeypatch, asked):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{asked}\n/exit\n"))
    code, out, err = run("chat", "-m", checkpoint)
    assert (code, err) == (0, "")
    assert out.endswith("/new starts a new conversation, /exit or ctrl-D leaves; ctrl-C stops an answer\n")


def test_chat_knows_its_commands_and_takes_a_path_for_a_question(run, checkpoint, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("/exti\n"))
    code, out, err = run("chat", "-m", checkpoint)
    assert (code, err) == (0, "redraft: there is no command /exti; /help lists them\n")
    assert out == f"{CARD['purpose']}\n{CARD['limits']}\n\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("/etc/hosts is a file\n"))
    assert "no command" not in run("chat", "-m", checkpoint, "--seed", 3)[2]


def test_chat_says_what_the_model_is_for_and_answers(run, checkpoint, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n\n/new\nhello\n/exit\nnever read\n"))
    code, out, err = run("chat", "-m", checkpoint, "--seed", 3)
    assert code == 0
    first, *others = err.splitlines()
    assert first.startswith("redraft: warning: canvas 1 took all of 6 steps") or "is cut after 24 tokens" in first
    assert all(line.startswith("redraft: warning: ") for line in others)
    purpose, limits, rest = out.split("\n", 2)
    assert (purpose, limits) == (CARD["purpose"], CARD["limits"])
    # The same question, the same seed and nothing remembered: twice the same answer.
    half = len(rest) // 2
    assert rest
    assert rest[:half] == rest[half:]


def test_chat_survives_a_question_it_cannot_take(run, checkpoint, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("word " * 400 + "\nhello\n"))
    code, out, err = run("chat", "-m", checkpoint, "--seed", 3)
    assert code == 0
    assert "the context holds 256" in err
    assert len(out.strip().splitlines()) > 1


def test_data_build_is_deterministic(run, tmp_path):
    for name in ("a", "b"):
        assert run("data", "build", "--out", tmp_path / name, "--examples", 5, "--sample", 4)[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "a" / "extract.jsonl").read_text().splitlines()]
    assert [row["seen"] for row in rows] == [True] * 5 + [False] * 5
    assert len(list((tmp_path / "a").iterdir())) == 30
    for file in [path.name for path in (tmp_path / "a").iterdir()]:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_eval_extract(run, checkpoint, tmp_path):
    code, out, _ = run(
        "eval", "extract", "-m", checkpoint, "--examples", 2, "--json", "--failures", tmp_path / "wrong.jsonl"
    )
    assert code == 0
    summary = json.loads(out)
    assert summary["examples"] == 4
    assert (summary["exact_seen"], summary["exact_unseen"], summary["valid_json"]) == (0, 0, 0)
    assert summary["steps_per_canvas"] > 0
    assert len((tmp_path / "wrong.jsonl").read_text().splitlines()) == 4


def test_eval_rows(run, checkpoint, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "hello", "answer": "there"}\n{"prompt": "again", "answer": "and again"}\n')
    code, out, _ = run("eval", "rows", rows, "-m", checkpoint, "--json", "--steps", 2)
    summary = json.loads(out)
    assert (code, summary["examples"], summary["exact"]) == (0, 2, 0)
    assert summary["character_error_rate"] > 0
    code, out, err = run("eval", "rows", rows, "-m", checkpoint, "--score", "fields")
    assert (code, out) == (2, "")
    assert "the right answer of 'hello' is not a JSON object: 'there'" in err
    code, out, err = run("eval", "rows", rows, "-m", checkpoint, "--score", "taste")
    assert (code, err) == (2, "redraft: --score is 'taste', must be one of text, fields\n")


def test_a_prompt_beyond_the_context_is_refused_before_any_answer(run, checkpoint, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "hello", "answer": "there"}\n{"prompt": "' + "word " * 400 + '", "answer": "b"}\n')
    code, out, err = run("eval", "rows", rows, "-m", checkpoint)
    assert (code, out) == (2, "")
    assert "the context holds 256" in err


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        (("eval", "normalize"), "rapidfuzz", "eval"),
        (("eval", "frontier", "--picture", "x.svg"), "matplotlib", "eval"),
        (("data", "build"), "codespell_lib", "train"),
        (("train", "bundled"), "faker", "train"),
        (("train", "report"), "matplotlib", "train"),
    ],
)
def test_an_optional_package_that_is_missing_is_named(run, tmp_path, monkeypatch, command, package, extra):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == package else find_spec(name, *more)
    )
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    assert err == f"redraft: this needs {package}: pip install -e '.[{extra}]' in the checkout\n"
    assert not list(tmp_path.iterdir())


def test_eval_of_generated_tasks(run, checkpoint):
    code, out, _ = run("eval", "sudoku", "-m", checkpoint, "--examples", 1, "--steps", 1, "--json")
    summary = json.loads(out)
    assert (code, summary["examples"], summary["exact"]) == (0, 3, 0)
    assert summary["groups"].keys() == {"easy", "medium", "hard"}
    needle = ("eval", "needle", "-m", checkpoint, "--steps", 1, "--depths", "0,1")
    code, out, _ = run(*needle, "--lengths", "150", "--json")
    assert code == 0
    assert json.loads(out)["groups"].keys() == {"150 tokens, depth 0", "150 tokens, depth 1"}
    code, _, err = run(*needle, "--lengths", "150,many")
    assert (code, err) == (2, "redraft: --lengths: 'many' is not a number\n")


def test_eval_frontier_measures_draws_and_writes(run, tmp_path):
    folder = tiny_checkpoint(tmp_path / "model")
    asked = (
        "eval", "frontier", "repair", "-m", folder, "--examples", 1, "--steps", "1,2", "--entropy-bounds", "0.1,9",
        "--temperatures", "0.5:0.7", "--confidence-thresholds", "0.3", "--points", tmp_path / "points.jsonl",
        "--picture", tmp_path / "frontier.svg",
    )  # fmt: skip
    code, out, err = run(*asked, "--json", "--write")
    assert code == 0, err
    result = json.loads(out)
    assert (result["measured"], result["written"]) == (4, True)
    assert (tmp_path / "frontier.svg").read_text().startswith("<?xml")
    config = json.loads((folder / "generation_config.json").read_text())
    chosen = result["chosen"]["settings"]
    assert config["max_denoising_steps"] == chosen["steps"]
    assert (config["t_min"], config["t_max"]) == (0.5, 0.7)
    assert config["sampler_config"]["entropy_bound"] == chosen["entropy_bound"]
    assert config["confidence_threshold"] == 0.3
    # What is known is not measured again.
    before = (tmp_path / "points.jsonl").read_bytes()
    code, out, _ = run(*asked)
    assert code == 0
    assert "chosen" in out
    assert (tmp_path / "points.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sudoku",), "there is no task 'sudoku'; there are extract, normalize, repair"),
        (("--steps", "8,x"), "--steps: 'x' is not a number"),
        (("--precisions", "float32,int3"), "precision is 'int3', must be auto, float32, bf16, int8,"),
        (("--precisions", "float32,bf16", "--write"), "--write: a checkpoint has no precision of its own"),
        (("--steps", "0"), "steps is 0, must lie between 1 and 4096"),
        (("--temperatures", "0.5"), "--temperatures: '' is not a number"),
        (("--confidence-thresholds", "0"), "confidence_threshold is 0.0"),
        (("--temperatures", "0.9:0.5"), "t_min 0.9 and t_max 0.5 must satisfy"),
        (("--examples", 121), "examples is 121, but the tuning set has 120"),
        (("--tolerance", 2), "--tolerance is 2.0, must lie between 0 and 1"),
        (("--picture", "no/where.svg"), "--picture: there is no folder 'no'"),
    ],
)
def test_eval_frontier_refuses_before_any_work(run, checkpoint, arguments, message):
    code, out, err = run("eval", "frontier", *arguments, "-m", checkpoint)
    assert (code, out) == (2, "")
    assert err.startswith(f"redraft: {message}")


def test_what_the_file_system_refuses_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = run("data", "build", "--out", tmp_path / "file", "--examples", 1, "--sample", 0)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert str(tmp_path / "file") in err


def test_failures_need_a_folder_before_any_work(run, checkpoint, tmp_path):
    code, out, err = run("eval", "extract", "-m", checkpoint, "--failures", tmp_path / "no" / "wrong.jsonl")
    assert (code, out) == (2, "")
    assert "--failures: there is no folder" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nope",), "No such command 'nope'; see: redraft --help"),
        (("train",), "Missing command; see: redraft train --help"),
        (("generate",), "there is no prompt: give one, - for standard input, or --rows FILE"),
        (("generate", "hello", "--stepz", 3), "No such option: --stepz"),
        (("generate", "hello", "--steps", "abc"), "--steps is 'abc', must be an integer; see: redraft generate --help"),
        (("generate", "hello", "--t-min=hot"), "--t-min is 'hot', must be a number; see: redraft generate --help"),
        (("eval", "extract", "--examples", 0), "--examples is 0, must be at least 1"),
        (("eval", "extract", "--examples", 251), "examples is 251, but extract.jsonl has 250 of each kind"),
        (("data", "build", "--sample", -1), "--sample is -1, must be at least 0"),
        (("info", "--context", -1), "--context is -1, must be at least 0"),
        (("train", "extract", "--threads", 0), "--threads is 0, must be a whole number from 1 to 1024"),
    ],
)
def test_what_is_typed_wrong_is_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"redraft: {message}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_a_command_there_is_help(run):
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "generate" in out


def test_one_end_of_the_schedule_is_checked_against_the_checkpoints_other(run, checkpoint):
    # The tiny checkpoint's own is the default, 0.4 to 0.8.
    assert run("generate", "hello", "-m", checkpoint, "--t-max", 0.5, "--max-new-tokens", 4)[0] == 0
    code, _, err = run("generate", "hello", "-m", checkpoint, "--t-min", 0.9)
    assert (code, err.count("\n")) == (2, 1)
    assert "t_min 0.9 and t_max 0.8" in err
    code, _, err = run("generate", "hello", "-m", checkpoint / "nowhere", "--t-min", 0)
    assert (code, err.count("\n")) == (2, 1)
    assert "t_min" in err


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_chat_refuses_what_is_not_utf_8_in_any_locale(checkpoint, locale):
    code = "from redraft.cli.main import main; main()"
    command = [sys.executable, "-c", code, "chat", "-m", checkpoint, "--seed", "3"]
    environment = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run(command, input=b"hall\xe9\n", capture_output=True, env=environment, check=False)
    assert ended.returncode == 2
    assert ended.stderr == b"redraft: standard input is not UTF-8\n"


@pytest.mark.parametrize("command", [["generate", "hello"], ["info"]])
def test_ctrl_c_is_heard_while_torch_is_imported(command):
    # As an import in there may do: whatever is raised is taken for a missing package.
    code = f"""
import os, signal, sys, time
from redraft.cli import main

class Pressed:
    def find_spec(self, name, *_):
        if name == "torch.nn":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            except BaseException:
                pass

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Pressed())
sys.argv = ["redraft", *{command}]
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "redraft: interrupted\n")
