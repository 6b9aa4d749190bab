"""Fine-tuning from Python: what the plan is, what is resumed, and what the run's folder stands for as a model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import redraft
from redraft.training import TrainingResult, finetune
from redraft.training.data.examples import Example
from redraft.weights.card import read_card
from redraft.weights.fetch import resolve
from tests.fakes.checkpoints import trainable_checkpoint

pytestmark = pytest.mark.usefixtures("without_curves")


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return trainable_checkpoint(tmp_path_factory.mktemp("start"))


@pytest.fixture
def known_start(start, tmp_path) -> Path:
    """The tiny checkpoint, with a card that names its recipe."""
    folder = shutil.copytree(start, tmp_path / "known")
    card = json.loads((folder / "redraft.json").read_text())
    (folder / "redraft.json").write_text(json.dumps(card | {"recipe": "tiny"}))
    return folder


def write_rows(path: Path, count: int) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"Say {i}", "answer": "x"}) + "\n" for i in range(count)))
    return path


def write_same_rows(path: Path, count: int) -> Path:
    path.write_text('{"prompt": "Say it", "answer": "x"}\n' * count)
    return path


def tune(rows: Path, out: Path, start: Path, **changes: Any) -> tuple[TrainingResult, list[str]]:
    lines: list[str] = []
    result = finetune(
        rows, out, base=str(start), lora=None, report=lines.append, **{"steps": 2, "batch_size": 2} | changes
    )
    return result, lines


def test_a_checkpoint_is_fine_tuned_in_a_few_lines(start, tmp_path):
    other = shutil.copytree(start, tmp_path / "other")
    (other / "special_tokens_map.json").write_text("{}")
    rows = write_rows(tmp_path / "rows.jsonl", 20)
    result, lines = tune(rows, tmp_path / "run", other, device="auto", steps=1)
    assert lines[0] == (
        "16 rows: 1 step of 2 examples, rate 0.0006, "
        f"none replayed: nothing is known of {other}'s own data, validation on 1 row at the end"
    )
    assert (result.checkpoint, result.summary["step"], result.is_cut) == (tmp_path / "run/step-0000001", 1, False)
    assert result.report == tmp_path / "run" / "report.html"
    assert (result.checkpoint / "special_tokens_map.json").read_text() == "{}"
    assert len((tmp_path / "run" / "held_out.jsonl").read_text().splitlines()) == 4
    model = redraft.load(result.checkpoint)
    assert model.defaults == redraft.load(start).defaults
    assert model.card.purpose == f"Fine-tuned from {other} on rows.jsonl."


def test_bad_settings_are_refused_before_any_work(start, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 1)
    with pytest.raises(TypeError, match="unroling"):
        tune(rows, tmp_path / "run", start, unroling=0)
    with pytest.raises(ValueError, match="unrolling is 2, must lie between 0 and 1"):
        tune(rows, tmp_path / "run", start, unrolling=2)
    for replay in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=rf"replay is {replay}, must be at least 0 and at most 0\.9"):
            tune(rows, tmp_path / "run", start, replay=replay)
    assert not (tmp_path / "run").exists()


def test_an_adapter_is_no_base(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ValueError, match=r"adapter is an adapter, not a model to train beside or from: give its base"):
        tune(write_rows(tmp_path / "rows.jsonl", 5), tmp_path / "run", folder)


def test_few_rows_are_all_trained_on(start, tmp_path):
    # Also of many that all ask the same.
    _, lines = tune(write_same_rows(tmp_path / "same.jsonl", 30), tmp_path / "same", start)
    assert lines[0].endswith("no validation: it needs at least 20 different prompts")
    assert "1 row more than once, as " in lines[2]
    result, lines = tune(write_rows(tmp_path / "rows.jsonl", 19), tmp_path / "run", start)
    assert "19 rows: 2 steps" in lines[0]
    assert lines[0].endswith("no validation: it needs at least 20 different prompts")
    assert not (tmp_path / "run" / "held_out.jsonl").exists()
    assert lines[-1] == f"as a model, {tmp_path / 'run'} is its step-0000002 (the last: no validation ran)"
    assert result.summary["best"] is None


# --- replay -------------------------------------------------------------------------------------------------------


def test_a_share_of_each_step_is_of_the_checkpoints_own_data(known_start, tmp_path):
    seen: list[tuple[int, int]] = []

    def source(count, _tokenizer):
        def examples(step: int) -> list[Example]:
            seen.append((step, count))
            return [Example((5, 6), (7, 1))] * count

        return examples

    rows = write_rows(tmp_path / "rows.jsonl", 10)
    arguments = {"batch_size": 4, "steps": 3, "replay_sources": {"tiny": source}}
    result, lines = tune(rows, tmp_path / "run", known_start, replay=0.5, **arguments)
    assert "steps of 4 examples, rate 0.0006, 50% of them replayed from tiny, " in lines[0]
    assert seen == [(0, 2), (1, 2), (2, 2)]
    # What was fine-tuned still knows where it comes from.
    assert read_card(result.checkpoint).recipe == "tiny"
    with pytest.raises(ValueError, match=r"holds a run with replay 0\.5, not 0: choose another folder"):
        tune(rows, tmp_path / "run", known_start, replay=0, **arguments)
    _, lines = tune(rows, tmp_path / "none", known_start, replay=0, **arguments)
    assert "rate 0.0006, none replayed, no validation" in lines[0]
    assert len(seen) == 3


# --- going on -----------------------------------------------------------------------------------------------------


def test_a_run_whose_time_is_over_says_how_far_it_came(start, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 20)
    result, lines = tune(rows, tmp_path / "run", start, steps=4, stop_after=0.0)
    assert result.is_cut
    assert "stopped by the time limit at step 1 of 4; to go on, run it again" in lines
    result, lines = tune(rows, tmp_path / "run", start, steps=4)
    assert not result.is_cut
    assert not [line for line in lines if "time limit" in line]
    assert any(line.startswith("resuming at step 1 from") for line in lines)


def test_rows_that_were_moved_go_on_and_other_rows_do_not(start, tmp_path):
    rows, other = write_rows(tmp_path / "rows.jsonl", 5), write_rows(tmp_path / "other.jsonl", 6)
    tune(rows, tmp_path / "run", start)
    rows.rename(moved := tmp_path / "moved.jsonl")
    _, lines = tune(moved, tmp_path / "run", start, steps=3)
    assert any(line.startswith("resuming at step 2 from") for line in lines)
    message = (
        r"run holds a run with rows of 5 lines \(sha256 \w{12}\), not of 6 lines \(sha256 \w{12}\): choose another"
    )
    with pytest.raises(ValueError, match=message):
        tune(other, tmp_path / "run", start, steps=3)
    with pytest.raises(ValueError, match=r"with validation some of the rows, not of 1 lines \(sha256"):
        tune(moved, tmp_path / "run", start, validation=write_unseen(tmp_path / "unseen.jsonl"))


def write_unseen(path: Path) -> Path:
    path.write_text('{"prompt": "Unseen", "answer": "x"}\n')
    return path


# --- which step the run's folder is -------------------------------------------------------------------------------


def test_a_runs_folder_is_its_best_step_as_a_model(start, tmp_path):
    run, rows = tmp_path / "run", write_rows(tmp_path / "rows.jsonl", 20)
    result, lines = tune(rows, run, start, steps=3, validate_every=1)
    assert result.checkpoint == run / f"step-{result.summary['best']['step']:07d}"
    assert lines[-1] == f"as a model, {run} is its {result.checkpoint.name} (the best of 3 validations)"
    assert 0 < result.summary["validation_share"] < 1
    assert f"validation took {result.summary['validation_share']:.0%} of the time" in lines
    assert resolve(run) == result.checkpoint
    by_run, by_step = (redraft.load(folder).generate("Say 1", seed=0) for folder in (run, result.checkpoint))
    assert by_run.token_ids == by_step.token_ids
    # It can be trained further from there.
    again, _ = tune(rows, tmp_path / "again", run, steps=1)
    assert json.loads((tmp_path / "again" / "run.json").read_text())["base"] == str(result.checkpoint)
    assert again.checkpoint.is_dir()


def test_a_run_that_is_still_going_is_its_last_step(start, tmp_path):
    run, rows = tmp_path / "run", write_rows(tmp_path / "rows.jsonl", 5)
    for step in (1, 2, 3):
        tune(rows, run, start, steps=step)
        assert redraft.read_card(run).purpose.startswith("Fine-tuned")
        assert json.loads((run / "checkpoint.json").read_text()) == {"checkpoint": f"step-{step:07d}"}


@pytest.mark.parametrize("chosen", ["", "..", "step-0000009", None])
def test_a_folder_that_names_a_checkpoint_that_is_not_there_is_refused(tmp_path, chosen):
    (tmp_path / "checkpoint.json").write_text(json.dumps({"checkpoint": chosen}))
    with pytest.raises(ValueError, match=r"checkpoint.json names the checkpoint .*, which is not there"):
        redraft.load(tmp_path)


# --- fewer steps, and what is shown -------------------------------------------------------------------------------


def test_steps_that_distil_are_compared_with_what_was_before(start, tmp_path):
    run, rows = tmp_path / "run", write_rows(tmp_path / "rows.jsonl", 20)
    rows.write_text(rows.read_text().replace("Say ", "<b>Say ").replace('"x"', '"x & y"'))
    settings = {"validation_answers": 2, "checkpoint_minutes": 1e-9}
    result, lines = tune(rows, run, start, steps=1, distill_steps=3, **settings)
    assert "16 rows: 1 step and 3 that distil of 2 examples" in lines[0]
    assert any(line.startswith("step 4/4  canvas") for line in lines)
    # The validation after them wins, whatever it says; what they began with is kept.
    assert result.checkpoint == run / "step-0000004"
    assert (run / "step-0000001").is_dir()
    at = lines.index("right answers with at most so many steps: before and after the steps that distil")
    cells = [line.split() for line in lines[at + 1 : at + 7]]
    # Its own settings allow six.
    assert [row[0] for row in cells] == ["1", "2", "3", "4", "6", lines[at + 6].split()[0]]
    assert all(len(row) == 3 for row in cells[:5])
    page = (run / "report.html").read_text()
    assert "<h2>Fewer steps</h2>" in page
    assert "&lt;b&gt;Say " in page
    assert "x &amp; y" in page
    assert "<b>" not in page
    # Run again, it has nothing to do; more steps that distil go on.
    _, again = tune(rows, run, start, steps=1, distill_steps=3, **settings)
    assert not [line for line in again if line.startswith("step ")]
    shown = json.loads((run / "examples.json").read_text())["examples"]
    assert len(shown) == 1
    assert shown[0].keys() == {"prompt", "expected", "before", "after"}


def test_steps_that_distil_need_rows_to_compare_on(start, tmp_path):
    with pytest.raises(
        ValueError, match="no rows to validate on: give others to validate on, or at least 20 different"
    ):
        tune(write_rows(tmp_path / "rows.jsonl", 5), tmp_path / "run", start, distill_steps=2)
