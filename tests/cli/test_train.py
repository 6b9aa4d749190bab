"""`redraft train extract` end to end: the real recipe for a few steps, resumed, and its checkpoint used."""

import json

import pytest

from tests.fakes.checkpoints import trainable_checkpoint


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def test_a_run_goes_on_where_it_stood_and_its_checkpoint_generates(run, out):
    options = ("--out", out, "--batch-size", 2, "--set", "validation_examples=2", "--set", "validation_answers=1")
    given = ("--set", "unrolling=0", "--set", "matrix_factor=null", "--set", "autocast=false", "--device", "cpu")
    code, first, err = run("train", "extract", *options, *given, "--steps", 2)
    assert (code, err) == (0, "")
    assert "step 2/2  canvas" in first
    assert "tokens/s" in first
    assert "validation: exact 0.0%" in first
    summary = json.loads(first.splitlines()[-1])
    assert (summary["step"], summary["best"]["step"]) == (2, 2)
    assert summary["checkpoint"] == str(out / "step-0000002")
    assert "<svg" in (out / "report.html").read_text()
    settings = json.loads((out / "step-0000002" / "training" / "state.json").read_text())["settings"]
    assert [settings[name] for name in ("unrolling", "matrix_factor", "autocast", "steps")] == [0, None, False, 2]
    code, second, _ = run("train", "extract", *options, *given, "--steps", 3)
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


def test_an_unknown_setting_is_named_beside_the_known(run):
    code, out, err = run("train", "extract", "--set", "unroling=0")
    assert (code, out) == (2, "")
    assert err.startswith("redraft: --set unroling=0: there is no setting 'unroling'; known: steps, batch_size,")


def test_a_setting_that_is_given_twice_is_refused(run):
    code, _, err = run("train", "extract", "--steps", 3, "--set", "steps=9")
    assert (code, err) == (2, "redraft: --set steps=9: steps is given twice\n")


def test_a_device_that_is_not_there_is_refused(run, tmp_path):
    for device, message in (("gpu", "device is 'gpu', must be auto, cpu or cuda"), ("cuda", "device is 'cuda' but")):
        code, out, err = run("train", "extract", "--out", tmp_path / "run", "--device", device)
        assert (code, out) == (2, "")
        assert err.startswith(f"redraft: {message}")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", 0), "steps is 0, must be at least 1"),
        (("--batch-size", -1), "batch_size is -1, must be at least 1"),
        (("--accumulate", 17), "accumulate is 17, must be at most batch_size, 16"),
        (("--ema", 1), "ema is 1.0, must lie between 0 and 1"),
        (("--learning-rate", "nan"), "learning_rate is nan, must be above 0"),
        (("--minutes", 0), "--minutes is 0.0, must be a finite number above 0"),
        (("--set", "seed=0.5"), "seed is 0.5, must be an integer"),
        (("--set", "unrolling=2"), "unrolling is 2, must lie between 0 and 1"),
        (
            ("--set", "unrolling=x"),
            "--set unrolling=x: 'x' is not a valid value for unrolling (expected a number)",
        ),
        (
            ("--set", "patience=x"),
            "--set patience=x: 'x' is not a valid value for patience (expected an integer)",
        ),
        (
            ("--set", "ema=x"),
            "--set ema=x: 'x' is not a valid value for ema (expected a number or null)",
        ),
        (
            ("--set", "compile=1"),
            "--set compile=1: '1' is not a valid value for compile (expected true or false)",
        ),
    ],
)
def test_bad_options_are_refused_before_any_work(run, tmp_path, arguments, message):
    code, out, err = run("train", "extract", "--out", tmp_path / "run", *arguments)
    assert (code, out, err) == (2, "", f"redraft: {message}\n")
    assert not (tmp_path / "run").exists()


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_fine_tuning_on_rows_learns_them(run, tmp_path):
    words = ("alpha", "beta", "gamma", "delta")
    file = written(tmp_path / "rows.jsonl", [{"prompt": f"Say {word}", "answer": word.upper()} for word in words])
    seen = written(tmp_path / "seen.jsonl", [{"prompt": "Say gamma", "answer": "GAMMA"}])
    other = written(tmp_path / "other.jsonl", [{"prompt": " Say gamma", "answer": "GAMMA"}])
    out = tmp_path / "my run"
    arguments = ("--out", out, "--batch-size", 4, "--learning-rate", 1e-3, "--method", "full")
    code, _, err = run("finetune", file, *arguments, "--validation", seen)
    assert (code, err) == (2, f"redraft: {file} has 1 prompt of {seen} too, for instance 'Say gamma'\n")
    code, said, err = run("finetune", file, *arguments, "--validation", other, "--steps", 30)
    assert (code, err) == (0, "")
    plan = "4 rows: 30 steps of 4 examples, rate 0.001, 20% of them replayed from wide, validation on 1 row "
    assert said.startswith(plan)
    assert "step 30/30  validation: exact 100.0%" in said
    checkpoint = out / "step-0000030"
    held_out = out / "held_out.jsonl"
    assert json.loads(held_out.read_text()) == {"prompt": " Say gamma", "answer": "GAMMA"}
    assert f"redraft eval rows '{held_out}' --model '{checkpoint}'\n" in said
    code, answer, _ = run("generate", "Say gamma", "-m", checkpoint, "--seed", 0)
    assert (code, answer) == (0, "GAMMA\n")
    code, shown, _ = run("examples", "-m", checkpoint)
    assert "Fine-tuned from bundled on rows.jsonl" in shown
    # It goes on from where it stood, says what is no longer as it was, and is not gone on with on other rows.
    state = checkpoint / "training" / "state.json"
    older = json.loads(state.read_text())
    del older["settings"]["unrolling_shown"]  # as of a run that is older than the setting
    state.write_text(json.dumps(older))
    changes = ("--set", "seed=1", "--set", "unrolling_shown=0.5")
    more = ("finetune", file, *arguments, "--validation", other, "--steps", 31, *changes)
    code, said, _ = run(*more)
    assert "resuming at step 30" in said
    assert "seed was 0 and is 1 from here on" in said
    assert "unrolling_shown was 0.0 and is 0.5 from here on" in said
    code, _, err = run("finetune", other, *arguments, "--steps", 40)
    assert code == 2
    assert f"{out} holds a run with rows of 4 lines (sha256" in err
    assert "choose another folder" in err


@pytest.mark.usefixtures("without_curves")
def test_rows_that_are_held_out_are_written_down_to_be_tested_on(run, tmp_path):
    file = written(tmp_path / "rows.jsonl", [{"prompt": f"Say {word}", "answer": "x"} for word in range(40)])
    code, said, err = run("finetune", file, "--out", tmp_path / "run", "--batch-size", 2, "--steps", 1)
    assert (code, err) == (0, "")
    held_out = tmp_path / "run" / "held_out.jsonl"
    assert len(held_out.read_text().splitlines()) == 8
    assert f"redraft eval rows {held_out} --model" in said


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return trainable_checkpoint(tmp_path_factory.mktemp("start"))


@pytest.mark.usefixtures("without_curves")
def test_a_run_whose_time_is_over_prints_the_command_that_continues_it(run, start, tmp_path):
    file = written(tmp_path / "rows.jsonl", [{"prompt": f"Say {word}", "answer": "x"} for word in range(19)])
    command = ("finetune", file, "--out", tmp_path / "my run", "--base", start, "--steps", 3)
    code, said, err = run(*command, "--minutes", 1e-6)
    assert (code, err) == (0, "")
    lines = said.splitlines()
    at = lines.index("stopped by the time limit at step 1 of 3; to go on, run it again")
    assert (
        lines[at + 2]
        == f"redraft finetune {file} --out '{tmp_path / 'my run'}' --base {start} --steps 3 --minutes 1e-06"
    )
    code, said, _ = run(*command)
    assert code == 0
    assert "resuming at step 1 from" in said
    assert "step 3/3" in said
    assert "time limit" not in said
    # Nothing was held out of so few, so there is no file to recommend.
    assert "redraft eval rows" not in said
    ask = ("generate", "Say 1", "--model", start, "--json", "--seed", 0, "--adapter")
    code, answer, err = run(*ask, tmp_path / "my run")
    assert (code, err) == (0, "")
    _, same, _ = run(*ask, tmp_path / "my run" / "step-0000003")
    assert json.loads(answer)["token_ids"] == json.loads(same)["token_ids"]


@pytest.mark.parametrize("replay", [-0.1, 1])
def test_a_share_of_replay_that_is_out_of_range_is_refused(run, tmp_path, replay):
    file = written(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "b"}])
    code, _, err = run("finetune", file, "--out", tmp_path / "run", "--replay", replay)
    assert (code, err) == (2, f"redraft: replay is {float(replay)}, must be at least 0 and at most 0.9\n")


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("", (), "{file} has no rows"),
        ('{"prompt": "a", "answer": "b"}\n{"prompt": "a"}\n', (), "{file}, line 2: no column 'answer'; there are"),
        ("{\n", (), "{file}, line 1 is not JSON"),
        ('{"prompt": "a", "answer": "' + "long " * 3000 + '"}', (), "{file}, line 1: a prompt of"),
        ('{"prompt": "a", "answer": "b"}', ("--method", "x"), "--method is 'x', must be lora or full"),
        ('{"prompt": "a", "answer": "b"}', ("--rank", 0), "rank is 0, must lie between 1 and 256"),
        ('{"prompt": "a", "answer": "b"}', ("--targets", "qkv"), "targets has 'qkv', which names no matrix"),
        ('{"prompt": "a", "answer": "b"}', ("--epochs", 0), "epochs is 0.0, must be above 0"),
        ('{"prompt": "a", "answer": "b"}', ("--validate-every", 2), "there are no rows to validate on"),
        ('{"prompt": "a", "answer": "b"}', ("--base", "no/where/"), "there is no folder 'no/where/'"),
    ],
)
def test_bad_rows_are_refused_before_any_work(run, tmp_path, content, arguments, message):
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    code, out, err = run("finetune", file, "--out", tmp_path / "run", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"redraft: {message.format(file=file)}")
    assert not (tmp_path / "run").exists()


def test_a_model_that_memory_cannot_train_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr("redraft.weights.memory.available_memory", lambda: 10**8)
    file = written(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "b"}])
    code, _, err = run("finetune", file, "--out", tmp_path / "run", "--method", "full")
    assert code == 2
    assert (
        "training this model, with gradients and optimizer, needs 0.22 GB of memory, but only 0.10 GB are free" in err
    )


def test_a_table_is_described_before_anything_is_trained(run, start, tmp_path):
    (file := tmp_path / "mails.csv").write_text("mail,team\nWhere is it?,delivery\nToo much,billing\n")
    form = ("--template", "Route: {mail}", "--columns", "team")
    code, out, err = run("finetune", file, *form, "--base", start, "--out", tmp_path / "run", "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith("2 rows, ")
    assert "Route: Where is it?<turn|>" in out
    assert "\u27e6delivery<turn|>\u27e7" in out
    assert not (tmp_path / "run").exists()
    code, _, err = run("finetune", file, "--template", "{male}", "--base", start, "--dry-run")
    assert (code, err) == (2, f"redraft: {file}, line 2: no column 'male'; there are 'mail', 'team'\n")
