import io
import json
import shutil
import sys

import pytest

from tests.fakes.adapters import adapter_folder

KEYS = {
    "text", "token_ids", "finish_reason", "steps_per_canvas", "tokens_per_forward", "seconds", "tokens_per_second",
    "seed", "model", "warnings", "trust",
}  # fmt: skip


@pytest.fixture
def stdin(monkeypatch):
    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

    return give


def test_json_has_what_a_program_needs(run, checkpoint):
    code, out, err = run("generate", "hello", "--model", checkpoint, "--seed", 3, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer.keys() == KEYS
    assert answer["seed"] == 3
    assert answer["model"] == str(checkpoint)
    assert all(1 <= steps <= 6 for steps in answer["steps_per_canvas"])


def test_plain_prints_the_same_text(run, checkpoint):
    _, as_json, _ = run("generate", "hello", "-m", checkpoint, "--seed", 3, "--json")
    code, plain, _ = run("generate", "hello", "-m", checkpoint, "--seed", 3, "--plain")
    assert code == 0
    assert plain == json.loads(as_json)["text"] + "\n"


def test_the_prompt_may_come_from_standard_input(run, checkpoint, stdin):
    stdin(b"hello")
    _, from_stdin, _ = run("generate", "-", "-m", checkpoint, "--seed", 3)
    assert run("generate", "hello", "-m", checkpoint, "--seed", 3)[1] == from_stdin


def test_a_prompt_that_the_c_locale_took_apart_is_put_together(run, checkpoint):
    _, expected, _ = run("generate", "caf\u00e9", "-m", checkpoint, "--seed", 3)
    assert run("generate", "caf\udcc3\udca9", "-m", checkpoint, "--seed", 3)[1] == expected


def test_modes(run, checkpoint, tmp_path):
    asked = ("-m", checkpoint, "--temperature", 1.5, "--seed", 3, "--max-new-tokens", 12)
    rows = tmp_path / "rows.txt"
    rows.write_text("hello\n")
    found = []
    for mode in ("autoregressive", "verified"):
        found.append(json.loads(run("generate", "hello", *asked, "--mode", mode, "--json")[1]))
        _, lines, err = run("generate", "--rows", rows, *asked, "--mode", mode, "--quiet")
        assert json.loads(lines)["text"] == found[-1]["text"], err
    alone, drafted = found
    assert drafted["token_ids"] == alone["token_ids"]
    assert "verification" not in alone
    assert drafted["verification"]["rounds"] >= 1
    code, _, err = run("generate", "hello", "-m", checkpoint, "--mode", "autoregressive", "--steps", 3)
    assert (code, err) == (2, "redraft: --mode autoregressive has no use for --steps: leave it out\n")
    code, _, err = run("generate", "hello", "-m", checkpoint, "--mode", "greedy")
    assert (code, err) == (2, "redraft: --mode is 'greedy', must be one of diffusion, autoregressive, verified, auto\n")


def test_options_are_obeyed(run, checkpoint):
    _, out, _ = run(
        "generate", "hello", "-m", checkpoint, "--seed", 3, "--json",
        "--steps", 2, "--canvas-length", 5, "--max-new-tokens", 7,
    )  # fmt: skip
    answer = json.loads(out)
    assert len(answer["token_ids"]) <= 7
    assert len(answer["steps_per_canvas"]) <= 2
    assert all(steps <= 2 for steps in answer["steps_per_canvas"])
    other = json.loads(run("generate", "hello", "-m", checkpoint, "--seed", 4, "--json")[1])
    assert (
        other["token_ids"]
        != json.loads(run("generate", "hello", "-m", checkpoint, "--seed", 3, "--json")[1])["token_ids"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "-m", "{}"], "prompt is empty"),
        (["  \n", "-m", "{}"], "prompt is empty"),
        (["word " * 400, "-m", "{}"], "the context holds 256"),
        (["x", "-m", "{}", "--steps", "0"], "steps is 0, must lie between 1 and"),
        (["x", "-m", "{}", "--canvas-length", "-1"], "canvas_length is -1"),
        (["x", "-m", "{}", "--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["x", "-m", "{}", "--t-min", "0.9", "--t-max", "0.2"], "0 < t_min <= t_max"),
        (["x", "-m", "{}", "--temperature", "-1"], "temperature is -1"),
        (["x", "-m", "{}", "--entropy-bound", "-0.1"], "entropy_bound is -0.1"),
        (["x", "-m", "{}", "--seed", "-5"], "seed is -5"),
        (["x", "-m", "{}", "--device", "tpu"], "device is 'tpu', must be auto, cpu or cuda"),
        (["x", "-m", "{}", "--precision", "int3"], "precision is 'int3'"),
        (["x", "-m", "{}", "--step-delay", "-1"], "--step-delay is -1"),
        (["x", "-m", "{}", "--plain", "--json"], "--plain cannot be combined with --json"),
        (["x", "-m", "{}", "--plain", "--step-delay", "1"], "--step-delay cannot be combined with --plain"),
        (["x", "-m", "{}", "--json", "--step-delay", "1"], "--step-delay cannot be combined with --json"),
        (["caf\udce9", "-m", "{}"], "the prompt is not UTF-8: byte 0xe9 at 3"),
        (["x", "-m", "/no/such/folder"], "there is no folder '/no/such/folder'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, checkpoint, arguments, message):
    code, out, err = run("generate", *[argument.replace("{}", str(checkpoint)) for argument in arguments])
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_standard_input_that_is_not_utf8(run, checkpoint, stdin):
    stdin(b"caf\xe9")
    code, out, err = run("generate", "-", "-m", checkpoint)
    assert (code, out, err) == (2, "", "redraft: standard input is not UTF-8: byte 0xe9 at 3\n")


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("model.safetensors", lambda data: data[:-100], "model.safetensors"),
        ("config.json", lambda data: data.replace(b'"diffusion_gemma"', b'"gpt2"'), "model_type"),
        (
            "config.json",
            lambda data: data.replace(b'"sliding_window": 5', b'"sliding_window": "wide"'),
            "sliding_window",
        ),
        ("config.json", lambda data: data.replace(b'"hidden_size": 32', b'"hidden_size": 48'), "shape"),
        ("tokenizer.json", lambda _: b"{", "tokenizer.json"),
        ("generation_config.json", lambda _: b'{"t_min": 2, "t_max": 1}', "t_min"),
        ("chat_template.jinja", lambda _: b"{{ raise_exception('no') }}", "no"),
    ],
)
def test_a_broken_checkpoint_is_one_line_and_exit_code_2(run, checkpoint, tmp_path, name, edit, message):
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    before = (broken / name).read_bytes() if (broken / name).exists() else b""
    (broken / name).write_bytes(edit(before))
    assert (broken / name).read_bytes() != before
    code, out, err = run("generate", "x", "-m", broken)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_strict_exits_with_3_once_everything_is_written(run, checkpoint):
    asked = ("generate", "hello", "-m", checkpoint, "--seed", 3, "--max-new-tokens", 4)
    _, text, warned = run(*asked)
    assert warned.startswith("redraft: warning: the answer is cut after 4 tokens: ")
    assert run(*asked, "--strict") == (3, text, warned)
    assert run(*asked, "--strict", "--quiet") == (3, text, "")
    code, out, err = run(*asked, "--strict", "--json")
    assert (code, err) == (3, "")
    assert [f"redraft: warning: {one}" for one in json.loads(out)["warnings"]] == warned.splitlines()


def test_strict_counts_the_rows_with_warnings(run, checkpoint, tmp_path):
    (tmp_path / "rows.txt").write_text("hello\nthere\n")
    asked = ("generate", "--rows", tmp_path / "rows.txt", "-m", checkpoint, "--max-new-tokens", 4, "--strict")
    code, out, err = run(*asked)
    assert (code, len(out.splitlines())) == (3, 2)
    assert all(json.loads(line)["warnings"] for line in out.splitlines())
    assert err.endswith('redraft: 2 of 2 answers have warnings: see "warnings" there\n')


def test_with_an_adapter(run, checkpoint, tmp_path):
    adapter = adapter_folder(tmp_path / "mails", checkpoint, 0)
    arguments = ("hello", "-m", checkpoint, "--seed", 3, "--json")
    code, out, _ = run("generate", *arguments, "--adapter", adapter)
    answer, base = json.loads(out), json.loads(run("generate", *arguments)[1])
    assert (code, answer["model"]) == (0, "mails")
    assert answer["text"] != base["text"]
    (rows := tmp_path / "rows.jsonl").write_text('{"prompt": "hello"}')
    code, out, _ = run("generate", "--rows", rows, "-m", checkpoint, "--seed", 3, "--adapter", adapter)
    assert json.loads(out)["text"] == answer["text"]
    code, _, err = run("generate", "hello", "-m", checkpoint, "--adapter", tmp_path / "none")
    assert code == 2
    assert "there is no folder" in err
    assert run("serve", checkpoint, "--adapter", "mails")[2].startswith("redraft: --adapter mails: must be NAME=FOLDER")
