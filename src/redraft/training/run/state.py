"""Checkpoints of a run: a folder in the released layout, ready to generate with, and in it what only training needs.

A checkpoint is a folder `step-<n>`, written under another name and renamed when it is whole: one that is there is good.
"""

import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from redraft.model.transformer import Transformer
from redraft.training.average import Average
from redraft.training.recipe import TrainingSettings
from redraft.utils.files import write_whole
from redraft.utils.json_files import json_bytes, read_json_object
from redraft.weights import Checkpoint, save_checkpoint

if sys.platform != "win32":
    import fcntl

KEPT = 2
"""Checkpoints of a run that stay; the older ones are deleted once a newer one is whole."""

CLAIM_FILE = "run.json"
"""What the run is of, so that nobody goes on with it on something else."""

TRAINING = "training"
OWN_WEIGHTS = "weights.safetensors"
"""In that folder where the checkpoint's weights are averages: the weights that training goes on with."""

_held: set[Path] = set()
"""Folders that this process has locked."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its checkpoints. `companions`: files that go into each (tokenizer, template, settings)."""

    path: Path
    companions: Path

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, the newest last."""
        return sorted(path for path in self.path.glob("step-*") if re.fullmatch(r"step-\d{7,}", path.name))

    def checkpoint(self, step: int | None) -> Path | None:
        """The folder of a step's checkpoint, whether it is there or not."""
        return None if step is None else self.path / f"step-{step:07d}"

    def save(
        self,
        model: Transformer,
        optimizer: Optimizer,
        step: int,
        settings: TrainingSettings,
        average: Average | None = None,
        *,
        keep: int | None = None,
    ) -> Path:
        """Writes `step-<n>`, then deletes all but the newest checkpoints and that of step `keep`.

        One that is there already is kept: training is deterministic, so it holds the same. With an `average`, that is
        what the checkpoint's weights are, and the model's own are for going on. OSError where it cannot be written, for
        instance on a full disk: nothing of it stays, and what was there is as it was.
        """
        target = self.path / f"step-{step:07d}"
        if target.exists():
            return target
        partial = self.path / f".{target.name}.partial"
        for leftover in self.path.glob(".step-*.partial"):
            shutil.rmtree(leftover)
        try:
            partial.mkdir(parents=True)
            self._write(partial, model, optimizer, step, settings, average)
            partial.rename(target)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            newest = self.checkpoints()[-1] if self.checkpoints() else "none"
            raise OSError(
                f"cannot save step {step} in {self.path}: {error}; the newest checkpoint is {newest}"
            ) from None
        for old in self.checkpoints()[:-KEPT]:
            if old != self.checkpoint(keep):
                shutil.rmtree(old)
        return target

    def _write(
        self,
        partial: Path,
        model: Transformer,
        optimizer: Optimizer,
        step: int,
        settings: TrainingSettings,
        average: Average | None,
    ) -> None:
        for file in self.companions.glob("[!.]*"):
            shutil.copy(file, partial)
        own = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        save_checkpoint(partial, model.config, own if average is None else average.state_dict(model))
        tensors = {
            f"{index}.{key}": value.contiguous()
            for index, slots in optimizer.state_dict()["state"].items()
            for key, value in slots.items()
        }
        (partial / TRAINING).mkdir()
        if average is not None:
            save_file(own, partial / TRAINING / OWN_WEIGHTS)
        save_file(tensors, partial / TRAINING / "optimizer.safetensors")
        state = {"step": step, "settings": dataclasses.asdict(settings)}
        (partial / TRAINING / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        for file in (partial / TRAINING).iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())

    def saved_settings(self) -> dict[str, Any]:
        """The settings of the newest checkpoint's run, empty where there is none."""
        for newest in self.checkpoints()[-1:]:
            found = read_json_object(newest / TRAINING / "state.json").get("settings")
            return found if isinstance(found, dict) else {}
        return {}

    def resume(self, model: Transformer, optimizer: Optimizer, average: Average | None = None) -> int:
        """Loads the newest checkpoint into model, optimizer and average; returns its step, 0 where there is none.

        ValueError where it belongs to another model or optimizer than these, or cannot be read.
        """
        checkpoints = self.checkpoints()
        if not checkpoints:
            return 0
        newest = checkpoints[-1]
        checkpoint = Checkpoint.open(newest)
        if checkpoint.config != model.config:
            raise ValueError(f"{newest} holds a model of another shape than the recipe's; choose another folder")
        model.load_state_dict(checkpoint.load(dtype=model.embed_tokens.weight.dtype, device="cpu"))
        slots: dict[int, dict[str, Tensor]] = {}
        try:
            if average is not None:
                # One that was made without an average begins its own with its weights.
                average.parameters = {name: model.get_parameter(name).detach().clone() for name in average.parameters}
            if (newest / TRAINING / OWN_WEIGHTS).exists():
                model.load_state_dict(load_file(newest / TRAINING / OWN_WEIGHTS))
            for name, tensor in load_file(newest / TRAINING / "optimizer.safetensors").items():
                index, key = name.split(".", 1)
                slots.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
            step: int = json.loads((newest / TRAINING / "state.json").read_text(encoding="utf-8"))["step"]
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise ValueError(
                f"cannot go on from {newest}: {error}; remove it to go on from the one before, or choose another folder"
            ) from None
        return step

    def claim(self, **what: str) -> None:
        """Says what the run is of. ValueError where the folder holds a run of something else."""
        claimed = self.path / CLAIM_FILE
        known = read_json_object(claimed) if claimed.exists() else {}
        for name, value in what.items():
            if known.get(name, value) != value:
                raise ValueError(
                    f"{self.path} holds a run with {name} {known[name]}, asked for is {value}: choose another --out"
                )
        write_whole(claimed, json_bytes({**known, **what}))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps the folder for this process, which may ask again. ValueError where another process has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        place = self.path.resolve()
        if sys.platform == "win32" or place in _held:
            yield
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another process is training in {self.path}; choose another folder") from None
            _held.add(place)
            yield
        finally:
            _held.discard(place)
            os.close(folder)
