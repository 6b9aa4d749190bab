"""The training loop and its checkpoints: resuming, being killed anywhere, losses that are no longer finite."""

import dataclasses
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from redraft.diffusion.randomness import Counter
from redraft.diffusion.settings import SamplerSettings
from redraft.model.attention import SegmentedAttention
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.model.config import ModelConfig
from redraft.model.transformer import Transformer
from redraft.training import loop
from redraft.training.data.examples import Example, make_batch
from redraft.training.initialization import initialize
from redraft.training.objective import Losses, losses
from redraft.training.optimizer import make_optimizer
from redraft.training.recipe import Recipe, TrainingData
from redraft.training.run.log import read_rows
from redraft.training.run.state import RunFolder
from redraft.training.run.trained import WholeModel
from redraft.training.settings import TrainingSettings
from redraft.training.validation import Scores
from redraft.weights.checkpoint import Checkpoint
from redraft.weights.fetch import resolve
from tests.fakes.models import tiny_config

VOCAB = 61


def recipe(model: ModelConfig | None = None, **changes) -> Recipe:
    settings = {
        "steps": 6,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "autocast": False,
        "log_every": 1,
    }
    data = TrainingData(source)
    return Recipe(model=model or tiny_config(), settings=TrainingSettings(**settings | changes), data=lambda _: data)


def train(plan: Recipe, examples, run: RunFolder, *, report, validate=None, start=None, stop_after=math.inf, **parts):
    """Trains `plan` on other examples and with other parts."""
    data = TrainingData(examples, () if validate is None else source(0))
    changed = dataclasses.replace(plan, data=lambda _: data, validation=lambda *_, **__: validate, **parts)
    return loop.train(changed, run, report=report, start=start, stop_after=stop_after)


def source(step: int) -> list[Example]:
    """Another two examples at each step, to be copied."""
    generator = torch.Generator().manual_seed(step)
    texts = [tuple(torch.randint(3, VOCAB, (size,), generator=generator).tolist()) for size in (6, 11)]
    return [Example(text, (*text, 1)) for text in texts]


@pytest.fixture
def run(tmp_path) -> RunFolder:
    companions = tmp_path / "companions"
    companions.mkdir()
    (companions / "tokenizer.json").write_text("{}")
    return RunFolder(tmp_path / "run", companions)


class SeenLosses(list[float]):
    """The loss of every step that was trained with its objective, in full precision."""

    def objective(self, model, batch, **settings) -> Losses:
        loss = losses(model, batch, **settings)
        self.append(loss.total.item())
        return loss


@pytest.fixture
def seen() -> SeenLosses:
    return SeenLosses()


def quiet(_line: str) -> None:
    pass


def interrupted_at(step: int):
    """A source during which the user presses Ctrl-C."""

    def source_until(at: int) -> list[Example]:
        if at == step:
            raise KeyboardInterrupt
        return source(at)

    return source_until


def assert_same_weights(one: Transformer, other: Transformer) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own warnings about itself
def test_compiled_training_is_the_same_training(run, seen, tmp_path):
    plain = train(recipe(canvases_per_example=2), source, run, report=quiet, objective=seen.objective)
    before = seen[:]
    seen.clear()
    compiled = RunFolder(tmp_path / "compiled", run.companions)
    train(recipe(canvases_per_example=2, compile=True), source, compiled, report=quiet, objective=seen.objective)
    assert seen == pytest.approx(before, rel=1e-3)
    # Its checkpoints are anybody's.
    loaded = Transformer(plain.config)
    assert compiled.resume(WholeModel(loaded), make_optimizer(loaded, recipe().settings)) == 6
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, atol=1e-2, rtol=1e-2, msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_model_of_one_expert_is_compiled_for_several_threads(run):
    plan = recipe(tiny_config(num_experts=1, experts_per_token=1), steps=2, compile=True)
    torch.set_num_threads(2)
    try:
        train(plan, source, run, report=quiet)
    finally:
        torch.set_num_threads(1)


def test_compiling_without_a_compiler_is_refused(run, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"compile requires a C\+\+ compiler and finds none"):
        train(recipe(compile=True), source, run, report=quiet)
    assert not run.checkpoints()


# --- resuming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"matrix_factor": 4.0, "row_block": 8}], ids=["adamw", "muon"])
def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(run, seen, tmp_path, changes):
    plan = recipe(**changes)
    straight = train(plan, source, run, report=quiet, objective=seen.objective)
    before = seen[:]
    seen.clear()
    other = RunFolder(tmp_path / "other", run.companions)
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train(plan, interrupted_at(3), other, report=lines.append, objective=seen.objective)
    assert lines[-1] == "interrupted at step 3 of 6; to go on, run it again"
    assert [path.name for path in other.checkpoints()] == ["step-0000003"]
    assert len(seen) == 3
    resumed = train(plan, source, other, report=lines.append, objective=seen.objective)
    assert f"resuming at step 3 from {other.path}" in lines
    assert seen == before
    assert len(set(seen)) == 6
    assert_same_weights(resumed, straight)
    last = "step-0000006/training/optimizer.safetensors"
    assert (other.path / last).read_bytes() == (run.path / last).read_bytes()


def test_ctrl_c_in_the_middle_of_an_update_waits_for_its_end(run, tmp_path):
    whole = train(recipe(steps=2), source, RunFolder(tmp_path / "whole", run.companions), report=quiet)

    def pressing(model, settings):
        optimizer = make_optimizer(model, settings)
        calls: list[int] = []

        def press(*_) -> None:
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGINT)

        optimizer.register_step_pre_hook(press)
        return optimizer

    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), source, run, report=lines.append, optimizer=pressing)
    assert lines[-1] == "interrupted at step 2 of 6; to go on, run it again"
    assert [path.name for path in run.checkpoints()] == ["step-0000002"]
    stopped = Transformer(recipe().model)
    run.resume(WholeModel(stopped), make_optimizer(stopped, recipe().settings))
    rate = recipe().settings.learning_rate_at
    assert [rate(0), rate(1)] == [recipe(steps=2).settings.learning_rate_at(step) for step in (0, 1)]
    assert_same_weights(stopped, whole)


def test_the_seed_decides_the_run(run, seen, tmp_path):
    train(recipe(seed=1, steps=2), source, run, report=quiet, objective=seen.objective)
    train(
        recipe(seed=2, steps=2),
        source,
        RunFolder(tmp_path / "other", run.companions),
        report=quiet,
        objective=seen.objective,
    )
    assert seen[0] != seen[2]
    assert seen[1] != seen[3]


def test_every_step_has_noise_of_its_own(run):
    batches = []

    def objective(model, batch, **_) -> Losses:
        batches.append(batch)
        return losses(model, batch)

    examples = source(0)
    plan = recipe(seed=4, self_conditioning=0.75, canvases_per_example=3, unrolling=0.5)
    train(plan, lambda _: examples, run, report=quiet, objective=objective)
    shares = {"self_conditioning": 0.75, "canvases_per_example": 3, "unrolling": 0.5}
    expected = [make_batch(examples, 8, VOCAB, Counter(4, step=step), **shares) for step in range(6)]
    assert any(batch.unrolled.any() for batch in expected)
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.noised, other.noised)
        assert torch.equal(batch.conditioned, other.conditioned)
        assert torch.equal(batch.unrolled, other.unrolled)
        assert torch.equal(batch.canvas_starts, other.canvas_starts)
    assert not torch.equal(batches[0].noised, batches[1].noised)


def test_a_recipes_sampler_decides_how_canvases_are_unrolled(run):
    sampler = SamplerSettings.of(t_min=0.1, t_max=0.2, entropy_bound=2.0)
    found = []

    def objective(model, batch, *, sampler, **_) -> Losses:
        found.append((sampler, float(batch.temperature.max())))
        return losses(model, batch)

    train(recipe(unrolling=1.0, steps=2), source, run, report=quiet, objective=objective, sampler=sampler)
    assert [given for given, _ in found] == [sampler, sampler]
    assert max(temperature for _, temperature in found) <= 0.2


def test_stopping_after_a_time_leaves_a_checkpoint(run, seen):
    train(recipe(log_every=5), source, run, report=quiet, objective=seen.objective, stop_after=0.0)
    assert len(seen) == 1
    assert [row["step"] for row in read_rows(run.path)] == [1]
    assert [path.name for path in run.checkpoints()] == ["step-0000001"]
    assert resolve(run.path) == run.checkpoint(1)


def test_a_finished_run_is_not_written_again(run, seen):
    first = train(recipe(steps=2), source, run, report=quiet, objective=seen.objective)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    again = train(recipe(steps=2), source, run, report=quiet, objective=seen.objective)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    assert len(seen) == 2
    assert_same_weights(first, again)


def test_another_models_checkpoint_is_refused(run):
    train(recipe(steps=1), source, run, report=quiet)
    before = files(run.path)
    with pytest.raises(ValueError, match=r"step-0000001 holds a model of a different shape .* choose another folder"):
        train(recipe(tiny_config(dense_size=64), steps=2), source, run, report=quiet)
    assert files(run.path) == before


def test_another_optimizers_checkpoint_is_refused(run):
    train(recipe(steps=1), source, run, report=quiet)
    with pytest.raises(
        ValueError, match=r"cannot resume from .*step-0000001: the optimizer state holds .*choose another"
    ):
        train(recipe(steps=2, matrix_factor=4.0), source, run, report=quiet)


@pytest.mark.parametrize("damage", ["missing", "truncated", "no step"])
def test_a_training_state_that_cannot_be_read_is_refused(run, damage):
    train(recipe(steps=1), source, run, report=quiet)
    folder = run.path / "step-0000001" / "training"
    if damage == "missing":
        (folder / "optimizer.safetensors").unlink()
    elif damage == "truncated":
        (folder / "optimizer.safetensors").write_bytes((folder / "optimizer.safetensors").read_bytes()[:100])
    else:
        (folder / "state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"cannot resume from .*step-0000001: .*; remove it to resume"):
        train(recipe(steps=2), source, run, report=quiet)


def test_a_folder_belongs_to_one_run_at_a_time(run):
    program = (
        "import sys; from pathlib import Path; from redraft.training.run.state import RunFolder\n"
        "with RunFolder(Path(sys.argv[1]), Path()).locked(): pass"
    )

    def another(step: int) -> list[Example]:
        command = [sys.executable, "-c", program, str(run.path)]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
        assert tried.returncode != 0
        assert "another process is training in" in tried.stderr
        with pytest.raises(ValueError, match=r"is training in .*choose another folder"), run.locked():
            pass
        return source(step)

    train(recipe(steps=1), another, run, report=quiet)
    assert subprocess.run([sys.executable, "-c", program, str(run.path)], check=False).returncode == 0
    train(recipe(steps=2), source, run, report=quiet)


# --- checkpoints --------------------------------------------------------------------------------------------------


def test_only_the_newest_checkpoints_stay(run):
    train(recipe(checkpoint_minutes=1e-9), source, run, report=quiet)
    assert [path.name for path in run.checkpoints()] == ["step-0000005", "step-0000006"]
    files = ["checkpoint.json", "log.jsonl", "step-0000005", "step-0000006"]
    assert sorted(path.name for path in run.path.iterdir()) == files


def test_no_checkpoint_before_its_time(run):
    def nothing_yet(step: int) -> list[Example]:
        assert run.checkpoints() == []
        return source(step)

    train(recipe(checkpoint_minutes=60.0), nothing_yet, run, report=quiet)


def test_a_checkpoint_is_a_model_with_its_companions(run):
    model = train(recipe(steps=2), source, run, report=quiet)
    folder = run.path / "step-0000002"
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.config == model.config
    loaded = Transformer(checkpoint.config)
    loaded.load_state_dict(checkpoint.load(dtype=torch.float32, device="cpu"))
    assert_same_weights(loaded, model)
    assert (folder / "tokenizer.json").read_text() == "{}"
    state = json.loads((folder / "training/state.json").read_text())
    assert state["step"] == 2
    assert state["settings"]["learning_rate"] == 1e-2


class Killed(BaseException):
    """What nobody catches."""


def kill_at(monkeypatch, operation: int) -> list[str]:
    """Lets the process die before its `operation`-th change of the file system; returns those that were made."""
    made: list[str] = []

    def dying(name: str, change):
        def changed(*args, **kwargs):
            if len(made) >= operation:
                raise Killed
            made.append(name)
            return change(*args, **kwargs)

        return changed

    for name in ("mkdir", "rename", "replace", "unlink", "remove", "rmdir"):
        monkeypatch.setattr(os, name, dying(name, getattr(os, name)))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return made


@pytest.mark.parametrize(
    ("there", "saved"),
    [((), 1), ((1,), 2), ((1, 2), 3), ((1, 2), 2), ((1,), 1)],
    ids=["first", "second", "third", "same-of-two", "same-of-one"],
)
def test_killed_anywhere_during_a_save_the_last_checkpoint_can_be_loaded(tmp_path, monkeypatch, there, saved):
    plan = recipe(tiny_config(layer_types=("full_attention",), num_experts=2, dense_size=8))
    companions = tmp_path / "companions"
    companions.mkdir()
    model = Transformer(plan.model)
    optimizer = make_optimizer(model, plan.settings)

    def make(run: RunFolder, step: int) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(step)
        run.save(WholeModel(model), optimizer, step, plan.settings)

    (tmp_path / "before").mkdir()
    for step in there:
        make(RunFolder(tmp_path / "before", companions), step)
    operation, finished = 0, False
    while not finished:
        run = RunFolder(shutil.copytree(tmp_path / "before", tmp_path / f"run-{operation}"), companions)
        with monkeypatch.context() as patch:
            made = kill_at(patch, operation)
            try:
                make(run, saved)
                finished = True
            except Killed:
                pass
        after = f"killed before change {operation} of the file system, after {made}"
        step = run.resume(WholeModel(model), optimizer)
        assert step in ({saved} if finished else {max(there, default=0), saved}), after
        assert step == 0 or all((parameter == step).all() for parameter in model.parameters()), after
        # And the run goes on from there.
        make(run, saved + 1)
        assert run.resume(WholeModel(model), optimizer) == saved + 1, after
        assert not list(run.path.glob(".*")), after
        operation += 1
    assert operation > 5 or saved in there


def test_on_a_full_disk_the_last_checkpoint_stays_and_nothing_of_the_new_one(tmp_path):
    plan = recipe(tiny_config(layer_types=("full_attention",), num_experts=2, dense_size=8))
    companions = tmp_path / "companions"
    companions.mkdir()
    (companions / "tokenizer.json").write_text("{}")
    model = Transformer(plan.model)
    initialize(model, seed=0)
    optimizer, run = make_optimizer(model, plan.settings), RunFolder(tmp_path / "run", companions)
    run.save(WholeModel(model), optimizer, 1, plan.settings)
    # No file may be longer than so many bytes, as on a disk with so much room: what is written first still fits.
    for room in (1, 4000, 40_000):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            with pytest.raises(OSError, match=r"cannot save step 2 in .*; the newest checkpoint is .*step-0000001"):
                run.save(WholeModel(model), optimizer, 2, plan.settings)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [path.name for path in run.path.iterdir()] == ["step-0000001"]
        assert run.resume(WholeModel(model), optimizer) == 1
    run.save(WholeModel(model), optimizer, 2, plan.settings)
    assert run.resume(WholeModel(model), optimizer) == 2


# --- losses that are no longer finite -----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(run, bad):
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), interrupted_at(3), run, report=quiet)
    before = files(run.path)
    calls = []

    def broken(model, batch, **_):
        calls.append(batch)
        value = torch.tensor(bad if len(calls) == 2 else 1.0) * model.norm.weight.sum()
        return Losses(value, torch.zeros(()))

    message = rf"the loss of step 4, examples 8 to 9 of the run, is {bad}; the last checkpoint in .* is untouched"
    with pytest.raises(ValueError, match=message):
        train(recipe(), source, run, report=quiet, objective=broken)
    assert len(calls) == 2
    assert files(run.path).items() - before.items() <= {("log.jsonl", (run.path / "log.jsonl").read_bytes())}


def test_gradients_that_are_not_finite_never_reach_a_checkpoint(run):
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), interrupted_at(3), run, report=quiet)
    before = files(run.path)

    def broken(model, _batch, **_):
        # A finite loss whose slope is infinite.
        return Losses((model.norm.weight - model.norm.weight.detach()).sum().clamp_min(0).sqrt(), torch.zeros(()))

    with pytest.raises(ValueError, match=r"the gradient of step 3, examples 6 to 7 of the run, is (inf|nan); the last"):
        train(recipe(steps=4), source, run, report=quiet, objective=broken)
    kept = {name: content for name, content in files(run.path).items() if not name.startswith(".")}
    assert kept == before


def test_a_new_run_begins_with_the_weights_it_is_told_and_a_resumed_one_with_its_own(run, seen, tmp_path):
    train(recipe(steps=2), source, run, report=quiet, objective=seen.objective)
    start = run.path / "step-0000002"
    other = RunFolder(tmp_path / "other", run.companions)
    seen.clear()
    train(recipe(steps=1, learning_rate=1e-9), source, other, report=quiet, objective=seen.objective, start=start)
    loaded = Transformer(recipe().model)
    loaded.load_state_dict(Checkpoint.open(start).load(dtype=torch.float32, device="cpu"))
    batch = make_batch(source(0), 8, VOCAB, Counter(0, step=0))
    (first,) = seen
    assert first == pytest.approx(losses(loaded, batch).total.item(), rel=1e-6)
    seen.clear()
    train(recipe(steps=2), source, other, report=quiet, objective=seen.objective, start=run.path / "gone")
    assert len(seen) == 1
    with pytest.raises(ValueError, match="holds a model of a different shape than the recipe's"):
        train(
            recipe(tiny_config(dense_size=64)),
            source,
            RunFolder(tmp_path / "x", run.companions),
            report=quiet,
            start=start,
        )


# --- parts, averages, validation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3])
def test_a_step_in_parts_is_the_same_step(run, seen, tmp_path, parts):
    plan = {"batch_size": 4, "canvases_per_example": 2, "prompt_weight": 0.1, "steps": 3, "unrolling": 1.0}

    def four(step: int) -> list[Example]:
        return [*source(step), *source(step + 100)]

    whole = train(recipe(**plan), four, run, report=quiet, objective=seen.objective)
    seen.clear()
    other = RunFolder(tmp_path / "parts", run.companions)
    split = train(recipe(**plan, accumulate=parts), four, other, report=quiet, objective=seen.objective)
    assert len(seen) == 3 * 2
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(split.state_dict()[name], tensor, atol=2e-5, rtol=1e-3, msg=name)
    for one, two in zip(read_rows(run.path), read_rows(other.path), strict=True):
        assert two["canvas_loss"] == pytest.approx(one["canvas_loss"], rel=1e-3)
        assert two["encoder_loss"] == pytest.approx(one["encoder_loss"], rel=1e-3)


def test_checkpoints_hold_the_average_and_training_goes_on_with_the_weights(run, tmp_path):
    plain = RunFolder(tmp_path / "plain", run.companions)
    states: list[dict[str, torch.Tensor]] = []
    for steps in (1, 2, 3, 4):
        model = train(recipe(steps=steps, decay_share=0.0), source, plain, report=quiet)
        states.append({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
    # Stopped and resumed once in the middle.
    train(recipe(steps=2, decay_share=0.0, ema=0.3), source, run, report=quiet)
    averaged = train(recipe(steps=4, decay_share=0.0, ema=0.3), source, run, report=quiet)
    assert_same_weights(averaged, model)
    fresh = Transformer(recipe().model)
    initialize(fresh, 0)
    saved = Checkpoint.open(run.path / "step-0000004").load(dtype=torch.float32, device="cpu")
    for name, parameter in fresh.named_parameters():
        average = parameter.detach()
        for step, state in enumerate(states):
            decay = min(0.3, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * state[name]
        torch.testing.assert_close(saved[name], average, msg=name)


def test_validation_sees_what_the_checkpoint_holds_and_the_best_one_stays(run):
    exact = iter([0.25, 0.75, 0.5, 0.75, 0.5])
    seen_weights: list[torch.Tensor] = []

    def validate(model: Transformer) -> Scores:
        seen_weights.append(model.norm.weight.clone())
        return Scores(next(exact), 3.0, 1.0, 2.0)

    lines: list[str] = []
    plan = recipe(steps=10, ema=0.5, validate_every=1, patience=3, checkpoint_minutes=1e-9)
    train(plan, source, run, report=lines.append, validate=validate)
    # The second was the best, and three others have brought nothing better.
    assert [path.name for path in run.checkpoints()] == ["step-0000002", "step-0000004", "step-0000005"]
    # It is the one that the run's folder stands for.
    assert resolve(run.path) == run.checkpoint(2)
    assert "step 2/10  validation: exact 75.0%  steps per canvas 3.0  canvas 1.0000  encoder 2.0000" in lines
    for step, weights in enumerate(seen_weights, start=1):
        if (folder := run.path / f"step-{step:07d}").exists():
            loaded = Checkpoint.open(folder).load(dtype=torch.float32, device="cpu")
            assert torch.equal(loaded["norm.weight"], weights)
    # A run that has ended for lack of progress has ended.
    train(plan, source, run, report=quiet, validate=validate)
    assert len(run.checkpoints()) == 3


def test_a_recipe_names_its_validation(run):
    calls = []

    def validation(held_out, sampler, **settings):
        calls.append((held_out, sampler, settings))
        return lambda _: Scores(0.5, 1.0, 1.0, 1.0)

    plan = recipe(validate_every=3, validation_answers=7, prompt_weight=0.5)
    data = TrainingData(source, held_out := source(99))
    plan = dataclasses.replace(plan, data=lambda _: data, validation=validation, sampler=SamplerSettings(steps=3))
    loop.train(plan, run, report=quiet)
    assert calls == [(held_out, SamplerSettings(steps=3), {"answers": 7, "prompt_weight": 0.5})]
    assert [row["step"] for row in read_rows(run.path) if row["kind"] == "validation"] == [3, 6]


def test_a_validation_that_a_kill_prevented_is_made_up_for(run):
    def never(_model: Transformer) -> Scores:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe(steps=4, validate_every=2), source, run, report=quiet, validate=never)
    assert [path.name for path in run.checkpoints()] == ["step-0000002"]
    train(recipe(steps=4, validate_every=2), source, run, report=quiet, validate=lambda _: Scores(0.5, 1.0, 1.0, 1.0))
    assert [row["step"] for row in read_rows(run.path) if row["kind"] == "validation"] == [2, 4]


# --- learning -----------------------------------------------------------------------------------------------------


def test_every_step_has_the_schedules_learning_rate_times_each_groups_factor(run):
    rates: list[list[float]] = []

    def watched(model, settings):
        optimizer = make_optimizer(model, settings)
        optimizer.register_step_pre_hook(
            lambda optimizer, *_: rates.append([group["lr"] for group in optimizer.param_groups])
        )
        return optimizer

    plan = recipe(warmup_steps=3, decay_share=0.5, matrix_factor=8.0, vector_factor=4.0)
    with pytest.raises(KeyboardInterrupt):
        train(plan, interrupted_at(2), run, report=quiet, optimizer=watched)
    train(plan, source, run, report=quiet, optimizer=watched)
    assert rates == [[plan.settings.learning_rate_at(step) * factor for factor in (8, 1, 4)] for step in range(6)]
    assert len({*map(max, rates)}) > 2


def test_muon_is_for_the_layers_matrices():
    model = Transformer(tiny_config())
    optimizer = make_optimizer(model, recipe(matrix_factor=3.0).settings)
    chosen = {id(p) for group in optimizer.param_groups if group["muon"] for p in group["params"]}
    others = {name for name, p in model.named_parameters() if p.dim() >= 2 and id(p) not in chosen}
    routers = {f"layers.{i}.router.proj.weight" for i in range(3)}
    added_unnormed = {f"self_conditioning.{name}_proj.weight" for name in ("gate", "up", "down")}
    assert others == {"embed_tokens.weight", *routers, *added_unnormed}
    assert not any(p.dim() < 2 and id(p) in chosen for p in model.parameters())
    assert not any(group["muon"] for group in make_optimizer(model, recipe().settings).param_groups)


def test_weight_decay_is_for_matrices():
    model = Transformer(tiny_config())
    optimizer = make_optimizer(model, recipe(weight_decay=0.3).settings)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        name: 0.3 if p.dim() >= 2 else 0.0 for name, p in model.named_parameters()
    }


def test_gradients_are_clipped(run):
    norms = []

    def watched(model, settings):
        optimizer = make_optimizer(model, settings)
        optimizer.register_step_pre_hook(
            lambda *_: norms.append(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
        )
        return optimizer

    train(recipe(clip_norm=0.01, steps=3), source, run, report=quiet, optimizer=watched)
    assert [float(norm) for norm in norms] == pytest.approx([0.01] * 3, rel=1e-3)


def test_progress_says_what_was_learned_since_the_last_line(run, seen):
    lines: list[str] = []
    train(recipe(log_every=4), source, run, report=lines.append, objective=seen.objective)
    assert [line.split()[1] for line in lines] == ["4/6", "6/6"]
    for line, part in zip(lines, (seen[:4], seen[4:]), strict=True):
        found = re.search(r"canvas (\d+\.\d+)  encoder (\d+\.\d+)  lr ", line)
        assert found is not None
        assert float(found[1]) + float(found[2]) == pytest.approx(sum(part) / len(part), abs=2e-4)


def test_new_weights_follow_from_the_seed():
    first, same, other = (Transformer(tiny_config()) for _ in range(3))
    for model, seed in ((first, 1), (same, 1), (other, 2)):
        torch.manual_seed(id(model) % 1000)
        initialize(model, seed)
    assert_same_weights(first, same)
    assert not torch.equal(first.embed_tokens.weight, other.embed_tokens.weight)
    for name, parameter in first.named_parameters():
        if parameter.dim() >= 2:
            assert float(parameter.detach().std()) == pytest.approx(parameter.shape[-1] ** -0.5, rel=0.15), name


@torch.no_grad()
def test_a_new_models_scores_are_of_size_one_and_its_branches_small(monkeypatch):
    model = Transformer(tiny_config(hidden_size=64))
    initialize(model, 0)
    scores, branches = [], []
    attend = SegmentedAttention.attend

    def spied(self, layer, q, k, v):
        scores.append((q.transpose(0, 1) @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).permute(1, 2, 0)).std())
        return attend(self, layer, q, k, v)

    monkeypatch.setattr(SegmentedAttention, "attend", spied)
    for layer in model.layers:
        layer.register_forward_hook(lambda _, inputs, out: branches.append((out - inputs[0]).std() / inputs[0].std()))
    batch = FlatBatch.single(torch.arange(3, 60), 0, Pass.ENCODER)
    hidden = model.run(batch, [KVCache(model.config)]).hidden
    assert all(0.6 < score < 1.4 for score in scores)
    assert all(share < 0.6 for share in branches)
    # Not much worse than knowing nothing: at size 1 the tied output would be sure of the token it has just read.
    loss = nn.functional.cross_entropy(model.head.logits(hidden)[:-1], batch.token_ids[1 : batch.covered])
    assert float(loss) < 1.5 * math.log(VOCAB)


def test_a_trivial_task_is_learned(run, seen):
    generator = torch.Generator().manual_seed(0)
    texts = [tuple(torch.randint(3, VOCAB, (5,), generator=generator).tolist()) for _ in range(6)]
    examples = [Example(text, (*text, 1)) for text in texts]
    plan = recipe(steps=60, learning_rate=2e-2, warmup_steps=5, self_conditioning=0.5)
    train(plan, lambda _: examples, run, report=quiet, objective=seen.objective)
    start, end = sum(seen[:5]) / 5, sum(seen[-5:]) / 5
    assert start > 6
    assert end < start / 2


@pytest.mark.parametrize("changes", [{}, {"matrix_factor": 2.0, "row_block": 8}], ids=["adamw", "muon"])
def test_training_in_bfloat16_learns_too(run, seen, changes):
    examples = source(0)
    train(recipe(steps=30, autocast=True, **changes), lambda _: examples, run, report=quiet, objective=seen.objective)
    assert sum(seen[-3:]) < 0.8 * sum(seen[:3])


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_used_only_where_it_is_fast_and_that_is_told(run, monkeypatch, fast):
    monkeypatch.setattr("redraft.training.loop.is_bfloat16_fast", lambda _: fast)
    lines, seen = [], []

    def objective(*arguments, **named):
        seen.append(torch.is_autocast_enabled("cpu"))
        return losses(*arguments, **named)

    train(recipe(steps=1, autocast=True), lambda _: source(0), run, report=lines.append, objective=objective)
    assert seen == [fast]
    assert any("float32" in line for line in lines) is not fast
