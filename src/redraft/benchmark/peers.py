"""transformers' own DiffusionGemma, for comparison. The one file that imports it, and only when it is asked for."""

import importlib
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from redraft.benchmark.compare import NEVER
from redraft.model import Transformer
from redraft.weights import save_checkpoint

VISION = ("vision_tower", "embed_vision")
"""Parts of the names of what a checkpoint of text alone lacks."""


class TransformersSteps:
    """The steps of one canvas by transformers' `generate`, from the weights of `model`, which is not prepared yet.

    prompts int64 [B, T], with T at least 1. ValueError where transformers is not installed, or does not take the
    weights as they are.
    """

    def __init__(self, model: Transformer, prompts: Tensor, steps: int) -> None:
        package = "transformers.models.diffusion_gemma"
        try:
            modeling = importlib.import_module(f"{package}.modeling_diffusion_gemma")
            generation = importlib.import_module(f"{package}.generation_diffusion_gemma")
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("transformers"):
                raise
            raise ValueError("this needs transformers 5.23: pip install 'redraft[compare]'") from error
        config = model.config
        with tempfile.TemporaryDirectory() as folder, _without_report():
            save_checkpoint(Path(folder) / "model", config, model.state_dict())
            self._model, info = modeling.DiffusionGemmaForBlockDiffusion.from_pretrained(
                Path(folder) / "model", dtype=model.embed_tokens.weight.dtype, output_loading_info=True
            )
        self._model.eval()
        wrong = [key for key in info["missing_keys"] if not any(part in key for part in VISION)]
        if wrong := wrong + list(info["unexpected_keys"]) + list(info["mismatched_keys"]):
            raise ValueError(f"transformers does not take these weights as they are: {wrong[:3]} and others")
        self._prompts, self._steps = prompts, steps
        self._settings = generation.DiffusionGemmaGenerationConfig(
            max_new_tokens=config.canvas_length,
            max_denoising_steps=steps,
            confidence_threshold=NEVER,
            eos_token_id=list(config.eos_ids),
            pad_token_id=config.pad_id,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What it ran with: its version, precision, and the implementations that are its defaults here."""
        text = self._model.config.text_config
        return {
            "version": importlib.import_module("transformers").__version__,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "attention": text._attn_implementation,
            "experts": text._experts_implementation,
        }

    def seconds(self) -> list[float]:
        """Seconds of each step but the first."""
        marks = _Marks()
        self._model.generate(self._prompts, generation_config=self._settings, streamer=marks)
        assert len(marks.at) == self._steps, "a canvas stopped early"
        return [after - before for before, after in zip(marks.at, marks.at[1:], strict=False)]


class _Marks:
    """A streamer that notes when each draft was there."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def put(self, value: Any) -> None: ...

    def end(self) -> None: ...

    def put_draft(self, value: Any) -> None:
        self.at.append(time.perf_counter())


@contextmanager
def _without_report() -> Iterator[None]:
    """Without transformers' progress bars and its warning that there is no vision tower; errors are still told."""
    told = importlib.import_module("transformers.utils.logging")
    level = told.get_verbosity()
    told.set_verbosity(logging.ERROR)
    shown = told.is_progress_bar_enabled()
    told.disable_progress_bar()
    try:
        yield
    finally:
        told.set_verbosity(level)
        if shown:
            told.enable_progress_bar()
