"""Training on a device: every tensor that the room makes names its device, and nothing is left on the default one."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import redraft.training
from redraft.diffusion.randomness import Counter
from redraft.diffusion.settings import SamplerSettings
from redraft.training.data.examples import Example, TrainingBatch, make_batch
from redraft.training.loop import train
from redraft.training.objective import losses
from redraft.training.optimizer import WeightAverage, make_optimizer
from redraft.training.recipe import Recipe, TrainingData
from redraft.training.run.state import RunFolder
from redraft.training.settings import TrainingSettings
from redraft.training.validation import make_validator
from tests.fakes.models import tiny_config, tiny_model

ROOM = str(Path(redraft.training.__file__).parent)
FACTORIES = {torch.tensor, torch.zeros, torch.ones, torch.full, torch.empty, torch.arange}
SETTINGS = TrainingSettings(
    steps=2, batch_size=2, learning_rate=0.1, matrix_factor=2.0, ema=0.5, canvases_per_example=2, unrolling=1.0,
    self_conditioning=1.0, unrolling_steps=2, unrolling_shown=0.3, row_block=4, validate_every=1,
)  # fmt: skip


def examples(_step: int = 0) -> list[Example]:
    return [Example((5, 6, 7), (*range(8, 20), 1)), Example((9,), (10, 11, 1))]


class DeviceIsNamed(TorchFunctionMode):
    """Collects where a file of the room makes a tensor without saying on which device."""

    def __init__(self) -> None:
        self.made, self.unnamed = 0, set[str]()

    def __torch_function__(self, function, _types, args=(), kwargs=None):
        caller = sys._getframe(1).f_code.co_filename, sys._getframe(1).f_lineno
        if function in FACTORIES and caller[0].startswith(ROOM):
            self.made += 1
            if "device" not in (kwargs or {}):
                self.unnamed.add(f"{caller[0]}:{caller[1]}")
        return function(*args, **(kwargs or {}))


def test_a_run_from_start_to_resuming_names_the_device_of_every_tensor(tmp_path: Path):
    (tmp_path / "companions").mkdir()
    run = RunFolder(tmp_path / "run", tmp_path / "companions")
    data = TrainingData(examples, examples())
    recipe = Recipe(model=tiny_config(), settings=SETTINGS, data=lambda _: data, sampler=SamplerSettings(steps=2))
    with DeviceIsNamed() as watch:
        train(recipe, run, report=lambda _: None, device="cpu")
        longer = dataclasses.replace(recipe, settings=dataclasses.replace(SETTINGS, steps=3))
        train(longer, run, report=lambda _: None, device="cpu")
    assert watch.made > 20
    assert not watch.unnamed, watch.unnamed


def batch() -> TrainingBatch:
    ways = {"self_conditioning": 1.0, "canvases_per_example": 2, "unrolling": 1.0, "unrolling_steps": 2}
    return make_batch(examples(), 8, 61, Counter(0), **ways)


def test_a_batch_moves_as_a_whole():
    moved = batch().to("meta")
    tensors = {name: value for name, value in vars(moved).items() if isinstance(value, Tensor)}
    assert len(tensors) == len(dataclasses.fields(TrainingBatch)) - 3  # all but lengths, places and least_passes
    assert {value.device.type for value in tensors.values()} == {"meta"}


@pytest.mark.parametrize("default", ["cpu", "meta"])
def test_a_step_does_not_depend_on_the_default_device(default: str):
    """On "meta" nothing can be computed, so a tensor on it beside those of the model would fail the step."""
    model = tiny_model()
    optimizer, average = make_optimizer(model, SETTINGS), WeightAverage(model, 0.5)
    with torch.device(default):
        loss = losses(model, batch(), row_block=4)
        loss.total.backward()
        optimizer.step()
        average.update(model, 0)
        scores = make_validator(examples(), SamplerSettings(steps=2))(model)
    assert loss.total.isfinite()
    assert scores.canvas_loss > 0
    state = optimizer.state_dict()["state"]
    assert {value.device.type for slots in state.values() for value in slots.values()} == {"cpu"}
