"""Recipes: functions that return everything a training run needs to know, as one typed configuration."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from redraft.model.config import FULL, SLIDING, AttentionShape, ModelConfig

MOST_EPOCHS = 1_000_000
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a run trains. Raises ValueError for values out of range.

    The learning rate rises linearly over `warmup_steps`, stays, and falls linearly to zero over the last
    `decay_share` of `steps`; so a run can be prolonged from any checkpoint before its decay. Norms and other vectors
    learn at `vector_factor` times it, the layers' matrices by Muon at `matrix_factor` times it (None: by AdamW, as the
    embedding, the router and self-conditioning do). `prompt_weight` is what predicting a token of the prompt counts
    beside one of the answer in the encoder loss. `canvases_per_example`: how many noised canvases share an example's
    encoder pass.
    `unrolling`: share of the self-conditioned examples whose canvases are taken one to `unrolling_steps` sampler steps
    further first, a share `unrolling_from_noise` of them from nothing but noise; of what comes out, a mean share
    `unrolling_shown` of positions then holds the right token.
    `row_block`: what the numbers of rows of products are filled up to a multiple of, so that few sizes occur (1:
    nothing is filled up). `compile` fuses the layers' element-wise work by torch.compile. `accumulate`: parts that a
    step's examples are worked off in, for less memory. `ema`: decay of the averaged weights that checkpoints hold
    (None: the weights themselves). Validation comes every `validate_every` steps (0: never) and ends the run once
    `patience` of them (0: any number) have brought nothing better.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 100
    decay_share: float = 0.3
    matrix_factor: float | None = None
    vector_factor: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    self_conditioning: float = 0.5
    canvases_per_example: int = 1
    unrolling: float = 0.0
    unrolling_steps: int = 1
    unrolling_from_noise: float = 0.0
    unrolling_shown: float = 0.0
    prompt_weight: float = 1.0
    autocast: bool = True
    row_block: int = 1
    compile: bool = False
    accumulate: int = 1
    ema: float | None = None
    validate_every: int = 0
    patience: int = 0
    seed: int = 0
    log_every: int = 10
    checkpoint_minutes: float = 3.0

    def __post_init__(self) -> None:  # noqa: C901 - one check after the other
        for name in (
            "steps",
            "batch_size",
            "canvases_per_example",
            "unrolling_steps",
            "accumulate",
            "log_every",
            "row_block",
        ):
            self._check_whole(name, 1)
        for name in ("warmup_steps", "validate_every", "patience", "seed"):
            self._check_whole(name, 0)
        if self.seed > MAX_SEED:
            raise ValueError(f"seed is {self.seed}, must be at most {MAX_SEED}")
        for name in ("learning_rate", "vector_factor", "matrix_factor", "clip_norm", "checkpoint_minutes"):
            value = getattr(self, name)
            if value is None and name == "matrix_factor":
                continue
            if not value > 0:
                raise ValueError(f"{name} is {value}, must be above 0")
            if math.isinf(value) and name != "checkpoint_minutes":
                raise ValueError(f"{name} is {value}, must be finite")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay is {self.weight_decay}, must be at least 0 and finite")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}, must lie between 0 and 1")
        for name in (
            "decay_share",
            "self_conditioning",
            "unrolling",
            "unrolling_from_noise",
            "unrolling_shown",
            "prompt_weight",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must lie between 0 and 1")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema is {self.ema}, must lie between 0 and 1")
        if self.patience and not self.validate_every:
            raise ValueError(f"patience is {self.patience}, which needs validate_every")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate is {self.accumulate}, must be at most batch_size, {self.batch_size}")

    def _check_whole(self, name: str, low: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int):
            raise ValueError(f"{name} is {value}, must be a whole number")
        if value < low:
            raise ValueError(f"{name} is {value}, must be at least {low}")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of step 0 … steps - 1."""
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        decay_steps = self.decay_share * self.steps
        fall = min(1.0, (self.steps - step) / decay_steps) if decay_steps else 1.0
        return self.learning_rate * min(rise, fall)


@dataclass(frozen=True)
class Recipe:
    """A model to make and how to train it."""

    model: ModelConfig
    settings: TrainingSettings


def bundled(**overrides: Any) -> Recipe:
    """The bundled model on all that it is for: the same model and ways, trained for longer."""
    return extract(**{"steps": 20_000, **overrides})


def rows(model: ModelConfig, count: int, epochs: float, *, validation: bool, **overrides: Any) -> Recipe:
    """Fine-tuning of any model on `count` rows: the bundled model's ways at an eighth of its learning rate.

    ValueError for `epochs` that are not above 0, and for validations where there is nothing to validate on.
    """
    base = dataclasses.replace(
        extract().settings, learning_rate=2.5e-4, decay_share=0.5, prompt_weight=0.0, validate_every=0, patience=0
    )
    batch_size = overrides.get("batch_size", base.batch_size)
    if "steps" not in overrides:
        if not 0 < epochs <= MOST_EPOCHS:
            raise ValueError(f"epochs is {epochs}, must be above 0 and at most {MOST_EPOCHS:,}")
        # What is no batch size is refused below.
        overrides["steps"] = math.ceil(count * epochs / max(1, batch_size))
    steps = overrides["steps"]
    if not validation and (overrides.get("validate_every") or overrides.get("patience")):
        raise ValueError("there are no rows to validate on: give --validation, or at least 20 rows")
    if validation:
        overrides.setdefault("validate_every", max(1, int(steps) // 5))
    overrides.setdefault("warmup_steps", min(base.warmup_steps, int(steps) // 10))
    return Recipe(model, dataclasses.replace(base, **overrides))


def extract(**overrides: Any) -> Recipe:
    """The bundled model: 10.8 M parameters (of which 6 M are active) and three thousand tokens, for short texts."""
    model = ModelConfig(
        vocab_size=3072,
        hidden_size=256,
        num_heads=4,
        layer_types=(SLIDING, SLIDING, FULL) * 2,
        sliding=AttentionShape(head_dim=64, num_kv_heads=2, rope_theta=1e4),
        full=AttentionShape(head_dim=128, num_kv_heads=1, rope_theta=1e6, rotated_fraction=0.25),
        sliding_window=256,
        dense_size=512,
        num_experts=8,
        experts_per_token=2,
        expert_size=160,
        canvas_length=64,
        max_context=4096,
        eos_ids=(1, 5),
    )
    settings = TrainingSettings(
        steps=6600,
        batch_size=16,
        canvases_per_example=4,
        self_conditioning=0.6,
        unrolling=0.8,
        unrolling_steps=4,
        unrolling_from_noise=0.5,
        # Without it nothing in an unrolled canvas is news beside its beliefs, and the canvas is no longer looked at.
        unrolling_shown=0.25,
        learning_rate=2e-3,
        warmup_steps=30,
        decay_share=0.4,
        matrix_factor=15.0,
        vector_factor=10.0,
        # Two thirds of the tokens are the prompt's, and most of what is in them nobody can predict.
        prompt_weight=0.1,
        row_block=128,
        validate_every=500,
    )
    return Recipe(model, dataclasses.replace(settings, **overrides))
