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


def test_an_unknown_setting_is_named_beside_the_known(run):
    code, out, err = run("train", "extract", "--set", "unroling=0")
    assert (code, out) == (2, "")
    assert err.startswith("redraft: --set unroling=0: there is no setting 'unroling'; known: steps, batch_size,")


def test_any_setting_can_be_given(monkeypatch, run):
    found = {}
    monkeypatch.setattr("redraft.cli.train._from_recipe", lambda name, run, *rest: found.update(run.settings))
    code, _, err = run(
        "train", "extract", "--set", "unrolling=0", "--set", "matrix_factor=null", "--set", "steps=9", "--steps", 3
    )
    assert (code, err) == (0, "")
    assert found == {"unrolling": 0, "matrix_factor": None, "steps": 3, "compile": False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", 0), "steps is 0, must be at least 1"),
        (("--batch-size", -1), "batch_size is -1, must be at least 1"),
        (("--accumulate", 17), "accumulate is 17, must be at most batch_size, 16"),
        (("--ema", 1), "ema is 1.0, must lie between 0 and 1"),
        (("--learning-rate", "nan"), "learning_rate is nan, must be above 0"),
        (("--minutes", 0), "--minutes is 0.0, must be above 0"),
        (("--set", "unrolling=2"), "unrolling is 2, must lie between 0 and 1"),
        (("--set", "unrolling=x"), "--set unrolling=x: 'x' is no value of unrolling, a float"),
        (("--set", "compile=1"), "--set compile=1: '1' is no value of compile, a bool"),
    ],
)
def test_bad_options_are_refused_before_any_work(run, tmp_path, arguments, message):
    code, out, err = run("train", "extract", "--out", tmp_path / "run", *arguments)
    assert (code, out, err) == (2, "", f"redraft: {message}\n")
    assert not (tmp_path / "run").exists()


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_fine_tuning_on_rows_learns_them(run, tmp_path):
    rows = [{"prompt": f"Say {word}", "answer": word.upper()} for word in ("alpha", "beta", "gamma", "delta")] * 6
    file = written(tmp_path / "rows.jsonl", rows)
    arguments = ("train", "rows", file, "--out", tmp_path / "run", "--batch-size", 4, "--learning-rate", 1e-3)
    code, out, err = run(*arguments, "--steps", 30, "--validate-every", 30)
    assert (code, err) == (0, "")
    assert out.startswith("23 rows to train on, 1 to validate on, 30 steps\n")
    assert "step 30/30  validation: exact 100.0%" in out
    checkpoint = tmp_path / "run" / "step-0000030"
    assert f"redraft eval rows {file} --model {checkpoint}\n" in out
    code, answer, _ = run("generate", "Say gamma", "-m", checkpoint, "--seed", 0)
    assert (code, answer) == (0, "GAMMA\n")
    code, shown, _ = run("examples", "-m", checkpoint)
    assert "fine-tuned from bundled on rows.jsonl" in shown
    # It goes on from where it stood, and refuses a model of another shape.
    code, out, _ = run(*arguments, "--steps", 31)
    assert "resuming at step 30" in out


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("", (), "{file} has no rows"),
        ('{"prompt": "a", "answer": "b"}\n{"prompt": "a"}\n', (), '{file}, line 2: "answer" is null, must be text'),
        ("{\n", (), "{file}, line 1 is not JSON"),
        ('{"prompt": "a", "answer": "' + "long " * 3000 + '"}', (), "{file}, line 1: a prompt of"),
        ('{"prompt": "a", "answer": "b"}', ("--epochs", 0), "epochs is 0.0, must be above 0"),
        ('{"prompt": "a", "answer": "b"}', ("--validate-every", 2), "validate_every needs rows to validate on"),
        ('{"prompt": "a", "answer": "b"}', ("--start", "no/where/"), "there is no folder 'no/where/'"),
    ],
)
def test_bad_rows_are_refused_before_any_work(run, tmp_path, content, arguments, message):
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    code, out, err = run("train", "rows", file, "--out", tmp_path / "run", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"redraft: {message.format(file=file)}")
    assert not (tmp_path / "run").exists()


def test_a_model_that_memory_cannot_train_is_refused(run, tmp_path, monkeypatch):
    from redraft.weights import MachineMemory

    monkeypatch.setattr("redraft.training.loop.machine_memory", lambda: MachineMemory(10**8, 10**8))
    file = written(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "b"}])
    code, _, err = run("train", "rows", file, "--out", tmp_path / "run")
    assert code == 2
    assert "takes 0 GB for weights, gradients and optimizer, 0 GB of this machine's memory are free" in err
