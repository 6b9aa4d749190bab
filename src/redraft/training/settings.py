"""Training settings: what a recipe can choose and the command line can change."""

import math
from dataclasses import dataclass
from typing import Any

MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The settings of a training run. Raises ValueError for values out of range.

    Learning rate: it rises linearly over `warmup_steps`, stays constant, and falls linearly to zero over the last
    `decay_share` of `steps`, so a run can be extended from any checkpoint before the decay. Vectors (such as norms)
    train at `vector_factor` times this rate. The layers' matrices train with Muon at `matrix_factor` times this rate;
    with None they use AdamW, as the embedding, the router and self-conditioning always do.

    Objective: `prompt_weight` is the weight of a prompt token in the encoder loss, relative to an answer token.
    `canvases_per_example` noised canvases share one encoder pass. A share `self_conditioning` of the examples is
    self-conditioned. A share `unrolling` of those first runs the sampler on its canvases for 1 to `unrolling_steps`
    steps; a share `unrolling_from_noise` of these canvases starts from pure noise, and afterwards a mean share
    `unrolling_shown` of their positions holds the right token.

    Compute: `autocast` runs the forward pass in bfloat16. Row counts of matrix products are padded to a multiple of
    `row_block` so that few sizes occur (1: no padding). `compile` fuses the layers' element-wise operations with
    torch.compile. `accumulate` splits a batch into this many parts to save memory.

    Checkpoints hold an exponential moving average of the weights with decay `ema` (None: the weights themselves).

    Validation runs every `validate_every` steps (0: never), on at most `validation_examples` examples, of which the
    model answers `validation_answers`. The run ends after `patience` validations without improvement (0: never).
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
    validation_examples: int = 128
    validation_answers: int = 64
    seed: int = 0
    log_every: int = 10
    checkpoint_minutes: float = 3.0

    def __post_init__(self) -> None:  # noqa: C901 - one check after the other
        counts = "steps batch_size canvases_per_example unrolling_steps accumulate log_every row_block".split()
        for name in (*counts, "validation_examples", "validation_answers"):
            self._check_integer(name, 1)
        for name in ("warmup_steps", "validate_every", "patience", "seed"):
            self._check_integer(name, 0)
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
        unrolling = ("unrolling", "unrolling_from_noise", "unrolling_shown")
        for name in ("decay_share", "self_conditioning", *unrolling, "prompt_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must lie between 0 and 1")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema is {self.ema}, must lie between 0 and 1")
        if self.patience and not self.validate_every:
            raise ValueError(f"patience is {self.patience}, which requires validate_every")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate is {self.accumulate}, must be at most batch_size, {self.batch_size}")

    def _check_integer(self, name: str, low: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int):
            raise ValueError(f"{name} is {value}, must be an integer")
        if value < low:
            raise ValueError(f"{name} is {value}, must be at least {low}")

    def learning_rate_at(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0."""
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        decay_steps = self.decay_share * self.steps
        fall = min(1.0, (self.steps - step) / decay_steps) if decay_steps else 1.0
        return self.learning_rate * min(rise, fall)


def proven_settings(**overrides: Any) -> TrainingSettings:
    """Returns the settings the bundled model was trained with, changed by `overrides`, which must include `steps`."""
    return TrainingSettings(
        **{
            "batch_size": 16,
            "canvases_per_example": 4,
            "self_conditioning": 0.6,
            "unrolling": 0.8,
            "unrolling_steps": 4,
            "unrolling_from_noise": 0.5,
            # Without it, an unrolled canvas adds nothing to the beliefs, and the model stops looking at the canvas.
            "unrolling_shown": 0.25,
            "learning_rate": 2e-3,
            "warmup_steps": 30,
            "decay_share": 0.4,
            "matrix_factor": 15.0,
            "vector_factor": 10.0,
            # Two thirds of the tokens belong to prompts, and most of them cannot be predicted.
            "prompt_weight": 0.1,
            "row_block": 128,
            "validate_every": 500,
            **overrides,
        }
    )
