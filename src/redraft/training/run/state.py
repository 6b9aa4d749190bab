"""The folder of a run and its checkpoints, each in the released layout and with the state that training needs.

A checkpoint is a folder `step-<n>`. It is written under another name and renamed when complete, so an existing one is
complete.
"""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from redraft.training.optimizer import WeightAverage
from redraft.training.run.processes import gathered, is_first, like, take, wait
from redraft.training.run.trained import Trained
from redraft.training.settings import TrainingSettings
from redraft.utils.files import write_whole
from redraft.utils.json_files import json_bytes, read_json_object
from redraft.utils.locks import lock_folder
from redraft.weights.fetch import CHOSEN_FILE

KEPT_CHECKPOINTS = 2
"""Older checkpoints are deleted once a newer one is complete."""

IDENTITY_FILE = "run.json"
"""What the run trains, so that it is not continued with something else."""

STATE_FOLDER = "training"
RAW_WEIGHTS_FILE = "weights.safetensors"
"""In the state folder of checkpoints that hold averaged weights: the weights that training continues with."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run. `companions` holds files that go into each checkpoint (tokenizer, template, settings)."""

    path: Path
    companions: Path

    def checkpoints(self) -> list[Path]:
        """Returns the complete checkpoints, the newest last."""
        return sorted(path for path in self.path.glob("step-*") if re.fullmatch(r"step-\d{7,}", path.name))

    def checkpoint(self, step: int) -> Path:
        """Returns the folder of a step's checkpoint, whether or not it exists."""
        return self.path / f"step-{step:07d}"

    def choose(self, best: int | None) -> Path:
        """Makes the checkpoint of step `best`, or the newest, the one that the run's folder stands for as a model."""
        chosen = self.checkpoints()[-1] if best is None else self.checkpoint(best)
        if is_first():
            write_whole(self.path / CHOSEN_FILE, json_bytes({"checkpoint": chosen.name}))
        return chosen

    def save(
        self,
        trained: Trained,
        optimizer: Optimizer,
        step: int,
        settings: TrainingSettings,
        average: WeightAverage | None = None,
        *,
        keep: Collection[int | None] = (),
    ) -> Path:
        """Writes `step-<n>`, then deletes all but the newest checkpoints and those of the steps `keep`.

        An existing one is kept: training is deterministic, so it holds the same. All processes of a run must call this,
        the first one writes. With an `average`, the checkpoint's
        weights are the averaged ones, and the model's own are part of the training state. OSError if it cannot be
        written, for instance on a full disk; nothing of it remains and existing checkpoints are untouched.
        """
        target = self.checkpoint(step)
        if target.exists():
            return target
        raw = gathered(trained.module.state_dict())
        weights = raw if average is None else gathered(average.state_dict(trained.module))
        slots = gathered(
            {
                f"{index}.{key}": value
                for index, slots in optimizer.state_dict()["state"].items()
                for key, value in slots.items()
            }
        )
        if is_first():
            self._write(target, trained, weights, slots, None if average is None else raw, step, settings)
            for old in self.checkpoints()[:-KEPT_CHECKPOINTS]:
                if old not in [self.checkpoint(step) for step in keep if step is not None]:
                    shutil.rmtree(old)
        wait()
        return target

    def _write(
        self,
        target: Path,
        trained: Trained,
        weights: Mapping[str, Tensor],
        slots: dict[str, Tensor],
        raw: dict[str, Tensor] | None,
        step: int,
        settings: TrainingSettings,
    ) -> None:
        partial = self.path / f".{target.name}.partial"
        for leftover in self.path.glob(".step-*.partial"):
            shutil.rmtree(leftover)
        try:
            partial.mkdir(parents=True)
            for file in self.companions.glob("[!.]*"):
                shutil.copy(file, partial)
            trained.write(partial, weights)
            _write_state(partial / STATE_FOLDER, slots, step, settings, raw=raw)
            partial.rename(target)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            newest = self.checkpoints()[-1] if self.checkpoints() else "none"
            raise OSError(
                f"cannot save step {step} in {self.path}: {error}; the newest checkpoint is {newest}"
            ) from None

    def saved_settings(self) -> dict[str, Any]:
        """Returns the settings that the newest checkpoint was trained with; empty if there is none."""
        for newest in self.checkpoints()[-1:]:
            found = read_json_object(newest / STATE_FOLDER / "state.json").get("settings")
            return found if isinstance(found, dict) else {}
        return {}

    def resume(self, trained: Trained, optimizer: Optimizer, average: WeightAverage | None = None) -> int:
        """Loads the newest checkpoint into what is trained, optimizer and average; its step, 0 if there is none.

        ValueError if it belongs to something else or to another optimizer, or cannot be read.
        """
        checkpoints = self.checkpoints()
        if not checkpoints:
            return 0
        newest = checkpoints[-1]
        trained.read(newest)
        model = trained.module
        slots: dict[int, dict[str, Tensor]] = {}
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        try:
            if average is not None:
                # A checkpoint without an average starts one from its weights.
                average.parameters = {name: model.get_parameter(name).detach().clone() for name in average.parameters}
            if (newest / STATE_FOLDER / RAW_WEIGHTS_FILE).exists():
                take(model, load_file(newest / STATE_FOLDER / RAW_WEIGHTS_FILE))
            for name, tensor in load_file(newest / STATE_FOLDER / "optimizer.safetensors").items():
                index, key = name.split(".", 1)
                own = parameters[int(index)] if int(index) < len(parameters) else tensor
                slots.setdefault(int(index), {})[key] = tensor if key == "step" else like(own, tensor)
            optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
            step: int = json.loads((newest / STATE_FOLDER / "state.json").read_text(encoding="utf-8"))["step"]
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise ValueError(
                f"cannot resume from {newest}: {error}; "
                "remove it to resume from the one before, or choose another folder"
            ) from None
        return step

    def claim(self, **identity: str) -> None:
        """Reserves the folder for a run of this identity. ValueError if it holds a run with another one."""
        claimed = self.path / IDENTITY_FILE
        known = read_json_object(claimed) if claimed.exists() else {}
        for name, value in identity.items():
            if known.get(name, value) != value:
                raise ValueError(
                    f"{self.path} holds a run with {name} {known[name]}, not {value}: choose another folder"
                )
        if is_first():
            write_whole(claimed, json_bytes({**known, **identity}))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder, which is made if need be, for all processes. ValueError if it is locked already."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not is_first():
            yield
            return
        with lock_folder(self.path, busy=f"another process is training in {self.path}; choose another folder"):
            yield


def _write_state(
    folder: Path, slots: dict[str, Tensor], step: int, settings: TrainingSettings, raw: dict[str, Tensor] | None
) -> None:
    folder.mkdir()
    if raw is not None:
        save_file(raw, folder / RAW_WEIGHTS_FILE)
    save_file(slots, folder / "optimizer.safetensors")
    state = {"step": step, "settings": dataclasses.asdict(settings)}
    (folder / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
