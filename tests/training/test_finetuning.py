"""Fine-tuning from Python: in a few lines, with the sampler settings of the checkpoint it starts from."""

import json
import shutil
from pathlib import Path

import pytest

import redraft
from redraft.training import finetune
from redraft.weights.fetch import BUNDLED_FOLDER


def test_a_checkpoint_is_fine_tuned_in_a_few_lines(tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"Say {i}", "answer": "x"}) + "\n" for i in range(20)))
    start = shutil.copytree(BUNDLED_FOLDER, tmp_path / "start")
    (start / "special_tokens_map.json").write_text("{}")
    lines: list[str] = []
    result = finetune(
        rows, tmp_path / "run", start=str(start), device="auto", steps=1, batch_size=2, report=lines.append
    )
    assert lines[0] == "19 rows to train on, 1 to validate on (answering 1), 1 steps"
    assert (result.checkpoint, result.summary["step"]) == (tmp_path / "run" / "step-0000001", 1)
    assert result.report == tmp_path / "run" / "report.html"
    assert (result.checkpoint / "special_tokens_map.json").read_text() == "{}"
    model = redraft.load(result.checkpoint)
    assert model.defaults == redraft.load(start).defaults
    assert model.card.purpose == f"Fine-tuned from {start} on rows.jsonl."


def test_bad_settings_are_refused_before_any_work(tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "answer": "b"}\n')
    with pytest.raises(TypeError, match="unroling"):
        finetune(rows, tmp_path / "run", unroling=0)
    with pytest.raises(ValueError, match="unrolling is 2, must lie between 0 and 1"):
        finetune(rows, tmp_path / "run", unrolling=2)
    assert not (tmp_path / "run").exists()
