"""The DiffusionGemma of transformers, for comparison. The one file that imports it, and only when it is used."""

import importlib
import itertools
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from redraft.benchmark.compare import UNREACHABLE_ENTROPY
from redraft.model.transformer import Transformer
from redraft.weights.save import save_checkpoint

VISION = ("vision_tower", "embed_vision")
"""Parts of the names of weights that a text-only checkpoint lacks."""


class TransformersSteps:
    """The steps of one canvas by transformers' `generate`, with the weights of `model`, which is not prepared yet.

    prompts int64 [B, T], T ≥ 1. Raises ValueError where transformers is missing or does not accept the weights.
    """

    def __init__(self, model: Transformer, prompts: Tensor, steps: int) -> None:
        package = "transformers.models.diffusion_gemma"
        try:
            modeling = importlib.import_module(f"{package}.modeling_diffusion_gemma")
            generation = importlib.import_module(f"{package}.generation_diffusion_gemma")
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("transformers"):
                raise
            raise ValueError("this needs transformers 5.23: pip install -e '.[compare]' in the checkout") from error
        config = model.config
        with tempfile.TemporaryDirectory() as folder, _without_report():
            save_checkpoint(Path(folder) / "model", config, model.state_dict())
            self.model, info = modeling.DiffusionGemmaForBlockDiffusion.from_pretrained(
                Path(folder) / "model", dtype=model.embed_tokens.weight.dtype, output_loading_info=True
            )
        self.model.eval()
        wrong = [key for key in info["missing_keys"] if not any(part in key for part in VISION)]
        if wrong := wrong + list(info["unexpected_keys"]) + list(info["mismatched_keys"]):
            raise ValueError(f"transformers does not accept these weights unchanged: {wrong[:3]} and others")
        self._prompts, self._steps = prompts, steps
        self._settings = generation.DiffusionGemmaGenerationConfig(
            max_new_tokens=config.canvas_length,
            max_denoising_steps=steps,
            confidence_threshold=UNREACHABLE_ENTROPY,
            eos_token_id=list(config.eos_ids),
            pad_token_id=config.pad_id,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """The version, precision and implementations it ran with; these are its defaults on this machine."""
        text = self.model.config.text_config
        return {
            "version": importlib.import_module("transformers").__version__,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attention": text._attn_implementation,
            "experts": text._experts_implementation,
        }

    def seconds(self) -> list[float]:
        """Runs one canvas of every request; seconds of each step but the first."""
        times = _DraftTimes()
        self.model.generate(self._prompts, generation_config=self._settings, streamer=times)
        assert len(times.at) == self._steps, "a canvas stopped early"
        return [after - before for before, after in itertools.pairwise(times.at)]


class _DraftTimes:
    """A streamer that records when each draft came."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def put(self, value: Any) -> None: ...

    def end(self) -> None: ...

    def put_draft(self, value: Any) -> None:
        self.at.append(time.perf_counter())


@contextmanager
def _without_report() -> Iterator[None]:
    """Silences transformers' progress bars and its warning that there is no vision tower, not its errors."""
    reports = importlib.import_module("transformers.utils.logging")
    level = reports.get_verbosity()
    reports.set_verbosity(logging.ERROR)
    had_progress_bar = reports.is_progress_bar_enabled()
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(level)
        if had_progress_bar:
            reports.enable_progress_bar()
