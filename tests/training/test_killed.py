"""A run that is killed at moments nobody chose, and started again, is the run that was never killed."""

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redraft.training.run.log import read_rows

STEPS = 30
PROGRAM = """
import sys
from pathlib import Path

from redraft.training.loop import train
from redraft.training.run.state import RunFolder
from tests.training.test_loop import recipe

folder = Path(sys.argv[1])
companions = folder.with_name("companions")
companions.mkdir(exist_ok=True)
ways = dict(matrix_factor=4.0, ema=0.9, canvases_per_example=2, unrolling=0.5, unrolling_steps=2)
plan = recipe(steps=int(sys.argv[2]), checkpoint_minutes=1e-9, **ways)
train(plan, RunFolder(folder, companions), report=lambda line: print(line, flush=True))
"""


def start(folder: Path, steps: int = STEPS) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROGRAM, str(folder), str(steps)]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)


def test_sigterm_leaves_a_checkpoint_to_go_on_from(tmp_path):
    with start(tmp_path / "run", steps=10_000) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        told = process.stdout.read()
    assert process.returncode != 0
    assert "interrupted at step" in told
    (step,) = re.findall(r"interrupted at step (\d+)", told)
    assert (tmp_path / "run" / f"step-{int(step):07d}").is_dir()


@pytest.mark.slow
def test_killed_again_and_again_the_losses_are_the_same(tmp_path):
    with start(tmp_path / "whole") as whole:
        whole.communicate()
    assert whole.returncode == 0
    kills, rng = 0, random.Random()
    while True:
        with start(tmp_path / "killed") as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.4) if kills < 4 else 0)
            if kills >= 4:
                process.communicate()
                break
            process.kill()
            kills += 1
    assert process.returncode == 0

    def facts(folder: Path) -> list[tuple[int, float, float, float]]:
        names = ("step", "canvas_loss", "encoder_loss", "learning_rate")
        return [tuple(row[name] for name in names) for row in read_rows(folder)]

    assert [step for step, *_ in facts(tmp_path / "killed")] == list(range(1, STEPS + 1))
    assert facts(tmp_path / "killed") == facts(tmp_path / "whole")
    last = f"step-{STEPS:07d}"
    for name in ("model.safetensors", "training/optimizer.safetensors", "training/weights.safetensors"):
        assert (tmp_path / "killed" / last / name).read_bytes() == (tmp_path / "whole" / last / name).read_bytes()
