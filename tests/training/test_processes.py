"""Several processes that train one model: the losses of one process, checkpoints for any number, clear ends."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from redraft.training.run.log import read_rows
from redraft.training.run.processes import planned_count
from redraft.weights.quantize import quantize_checkpoint
from tests.fakes.checkpoints import trainable_checkpoint

PROGRAM = """
import dataclasses
import sys
from pathlib import Path

from redraft.training.data.examples import Example
from redraft.training.recipe import TrainingData
from redraft.training.run.session import run_recipe
from redraft.training.settings import LoRASettings
from redraft.weights.config.file import read_config
from tests.training.test_loop import recipe, source

out, way, steps, batch = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
base = Path(sys.argv[5])
ways = dict(canvases_per_example=2, unrolling=0.5, unrolling_steps=3, self_conditioning=0.4, validate_every=2,
            validation_examples=2, validation_answers=1, row_block=4, decay_share=0.0, learning_rate=1e-3,
            clip_norm=1e9)
is_whole = way in ("full", "compiled")
if is_whole:
    ways |= dict(matrix_factor=4.0, ema=0.9, gradient_checkpointing=way == "full", compile=way == "compiled")


def examples(step):
    return [example for at in range(batch // 2) for example in source(step * 100 + at)]


plan = recipe(read_config(base), steps=steps, batch_size=batch, checkpoint_minutes=1e-9, **ways)
data = TrainingData(examples, examples(999)[:2])
plan = dataclasses.replace(plan, data=lambda _: data)
if not is_whole:
    plan = dataclasses.replace(plan, lora=LoRASettings(rank=2, targets=("all", "self_conditioning.up_proj")))
start = {"lora": base, "qlora": base.parent / "int8"}.get(way)
(out / "companions").mkdir(parents=True, exist_ok=True)
try:
    run_recipe(plan, out, start=start, device="cpu")
except ValueError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    quantize_checkpoint(trainable_checkpoint(folder / "base"), folder / "int8", "int8")
    return folder / "base"


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def start(count: int, *arguments: object) -> list[subprocess.Popen[str]]:
    """Starts the program as torchrun does, in so many processes."""
    port = str(free_port())
    started = []
    for rank in range(count):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        environment = os.environ | own | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *map(str, arguments)],
                cwd=Path(__file__).parents[2],
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    return started


def run(count: int, *arguments: object) -> list[str]:
    processes = start(count, *arguments)
    told = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, told
    return told


def losses(folder: Path) -> list[list[float]]:
    rows = list(read_rows(folder))
    progress = [[row["canvas_loss"], row["encoder_loss"]] for row in rows if row["kind"] == "progress"]
    return progress + [[row["canvas_loss"], row["exact"]] for row in rows if row["kind"] == "validation"]


def test_outside_of_torchrun_there_is_one_process():
    assert planned_count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("way", ["full", "lora", "qlora"])
def test_two_processes_train_as_one_and_one_goes_on_from_their_checkpoint(base, tmp_path, way):
    run(1, tmp_path / "one", way, 6, 4, base)
    told = run(2, tmp_path / "two", way, 4, 4, base)
    assert "step 4/4" in told[0]
    assert told[1] == ""
    # One goes on where two stood, and then two where one stood.
    run(1, tmp_path / "two", way, 5, 4, base)
    told = run(2, tmp_path / "two", way, 6, 4, base)
    assert "resuming at step 5" in told[0]
    torch.testing.assert_close(
        torch.tensor(losses(tmp_path / "two")[:6]), torch.tensor(losses(tmp_path / "one")[:6]), rtol=1e-3, atol=1e-5
    )
    # Gradients that are nearly zero are rounded otherwise, and AdamW steps alike for all sizes: whole tensors count.
    # Muon, which makes all directions equal, lets roundings grow. The optimizer's means are as large as the gradients.
    weights = "model.safetensors" if way == "full" else "adapter_model.safetensors"
    for file, limit in ((weights, 1e-2), ("training/optimizer.safetensors", 5e-2)):
        one, two = (load_file(tmp_path / name / "step-0000006" / file) for name in ("one", "two"))
        assert one.keys() == two.keys()
        for name, tensor in one.items():
            assert (two[name] - tensor).norm() <= limit * tensor.norm(), name


@pytest.mark.slow
def test_two_that_compile_train_as_one(base, tmp_path):
    run(1, tmp_path / "one", "compiled", 2, 4, base)
    run(2, tmp_path / "two", "compiled", 2, 4, base)
    one, two = (load_file(tmp_path / name / "step-0000002" / "model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        assert (two[name] - tensor).norm() <= 1e-2 * tensor.norm(), name


@pytest.mark.slow
def test_examples_that_cannot_be_divided_are_refused(base, tmp_path):
    processes = start(2, tmp_path / "run", "full", 2, 3, base)
    told = [process.communicate()[0] for process in processes]
    assert all("refused: batch_size is 3, must be a multiple of 2 for 2 processes" in text for text in told), told
    assert not list((tmp_path / "run").glob("step-*"))


@pytest.mark.slow
def test_one_that_is_killed_ends_the_others_and_leaves_the_checkpoints(base, tmp_path):
    first, second = start(2, tmp_path / "run", "full", 10_000, 4, base)
    assert first.stdout is not None
    for line in first.stdout:
        if "step 3/" in line:
            break
    second.kill()
    second.communicate()
    told = first.communicate(timeout=120)[0]
    assert first.returncode != 0
    assert "refused: process 0 of 2 has lost another one, which may have been killed" in told
    assert "start all of them again to go on from the newest" in told
    assert list((tmp_path / "run").glob("step-*"))
