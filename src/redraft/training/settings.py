"""Training settings: what a recipe can choose and the command line can change."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redraft.model.config import ModelConfig

MAX_SEED = 2**63 - 1
LOWEST_COUNTS = {
    **dict.fromkeys("steps batch_size canvases_per_example unrolling_steps accumulate log_every row_block".split(), 1),
    **dict.fromkeys(("validation_examples", "validation_answers"), 1),
    **dict.fromkeys(("warmup_steps", "validate_every", "patience", "seed", "distill_steps"), 0),
}
SHARES = (
    *("decay_share", "self_conditioning", "prompt_weight"),
    *("unrolling", "unrolling_from_noise", "unrolling_shown"),
)
DISTILL_RATE = 0.3
"""The learning rate at which distilling begins, relative to the highest of the run."""
DISTILL_NOISE = {"self_conditioning": 0.9, "unrolling": 1.0, "unrolling_steps": 4, "unrolling_from_noise": 1.0}
"""What distilling trains on: canvases that the model's own sampler made of pure noise in one to four steps."""


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

    `distill_steps` more steps come after the others, at a rate that falls from DISTILL_RATE times the highest to zero:
    they train the right answer from states that the sampler reaches from pure noise in a few steps, so that it is found
    in fewer (as consistency models are trained, arXiv:2303.01469). A validation of theirs is better than any before.

    Compute: `autocast` runs the forward pass in bfloat16 where that is fast (a GPU, a CPU with instructions for it).
    Row counts of matrix products are padded to a multiple of `row_block` so that few sizes occur (1: no padding).
    `compile` fuses the layers' element-wise operations with torch.compile. To save memory, `accumulate` splits a batch
    into this many parts, and `gradient_checkpointing` keeps of each layer only what goes in and the encoder's keys and
    values, and computes the rest again in the backward pass.

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
    distill_steps: int = 0
    prompt_weight: float = 1.0
    autocast: bool = True
    row_block: int = 1
    compile: bool = False
    accumulate: int = 1
    gradient_checkpointing: bool = False
    ema: float | None = None
    validate_every: int = 0
    patience: int = 0
    validation_examples: int = 128
    validation_answers: int = 64
    seed: int = 0
    log_every: int = 10
    checkpoint_minutes: float = 3.0

    def __post_init__(self) -> None:
        for name, low in LOWEST_COUNTS.items():
            self._check(name, isinstance(getattr(self, name), int), "be an integer")
            self._check(name, getattr(self, name) >= low, f"be at least {low}")
        self._check("seed", self.seed <= MAX_SEED, f"be at most {MAX_SEED}")
        for name in ("learning_rate", "vector_factor", "matrix_factor", "clip_norm", "checkpoint_minutes"):
            if getattr(self, name) is not None or name != "matrix_factor":
                self._check(name, getattr(self, name) > 0, "be above 0")
                self._check(name, getattr(self, name) < math.inf or name == "checkpoint_minutes", "be finite")
        self._check("weight_decay", 0 <= self.weight_decay < math.inf, "be at least 0 and finite")
        for name in SHARES:
            self._check(name, 0 <= getattr(self, name) <= 1, "lie between 0 and 1")
        self._check("ema", self.ema is None or 0 < self.ema < 1, "lie between 0 and 1")
        self._check("accumulate", self.accumulate <= self.batch_size, f"be at most batch_size, {self.batch_size}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}, must lie between 0 and 1")
        if self.compile and self.gradient_checkpointing:
            raise ValueError("compile and gradient_checkpointing do not go together: leave one of them out")
        if self.patience and not self.validate_every:
            raise ValueError(f"patience is {self.patience}, which requires validate_every")
        if self.patience and self.distill_steps:
            raise ValueError("patience and distill_steps do not go together: distilling begins when all steps are done")

    def _check(self, name: str, is_right: bool, limit: str) -> None:
        if not is_right:
            raise ValueError(f"{name} is {getattr(self, name)}, must {limit}")

    @property
    def total_steps(self) -> int:
        return self.steps + self.distill_steps

    def noise_at(self, step: int) -> dict[str, Any]:
        """Returns the arguments of `make_batch` that say what canvases a step trains on."""
        names = ("canvases_per_example", "unrolling_shown", *DISTILL_NOISE)
        return {name: getattr(self, name) for name in names} | (DISTILL_NOISE if step >= self.steps else {})

    def learning_rate_at(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0."""
        if step >= self.steps:
            return self.learning_rate * DISTILL_RATE * (self.total_steps - step) / max(1, self.distill_steps)
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        decay_steps = self.decay_share * self.steps
        fall = min(1.0, (self.steps - step) / decay_steps) if decay_steps else 1.0
        return self.learning_rate * min(rise, fall)


TARGET_GROUPS = {
    "attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "dense": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    "experts": ("experts.gate_up_proj", "experts.down_proj"),
}
TARGET_GROUPS["all"] = tuple(name for group in TARGET_GROUPS.values() for name in group)
"""What LoRA may be asked to adapt at once. The router and self-conditioning have to be named."""
MAX_RANK = 256


@dataclass(frozen=True, kw_only=True)
class LoRASettings:
    """The settings of a low-rank adapter (arXiv 2106.09685). Raises ValueError for values out of range.

    It adds alpha / rank times its product, with `rslora` alpha / √rank times (arXiv 2312.03732). dropout: share of its
    inputs that a step of training leaves out. targets: groups of matrices ("attention", "dense", "experts", "all"), or
    their names as "mlp.up_proj" or "q_proj".
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    rslora: bool = False
    targets: tuple[str, ...] = ("all",)

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MAX_RANK:
            raise ValueError(f"rank is {self.rank}, must lie between 1 and {MAX_RANK}")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha is {self.alpha}, must be above 0 and finite")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, must be at least 0 and below 1")
        if not self.targets:
            raise ValueError(f"targets is empty: name some of {', '.join(TARGET_GROUPS)}, or matrices")

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def __str__(self) -> str:
        parts = [f"rank {self.rank}", f"alpha {self.alpha:g}", *(["rsLoRA"] if self.rslora else [])]
        parts += [f"dropout {self.dropout:g}"] if self.dropout else []
        return f"LoRA on {', '.join(self.targets)}: {', '.join(parts)}"


def lora_targets(config: ModelConfig, targets: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns the matrices that `LoRASettings.targets` means, with their shapes. ValueError for one that is not there.

    Names end where the matrices' own do: "up_proj" is that of the dense branch and of self-conditioning.
    """
    shapes = {name: shape for name, shape in config.parameter_shapes().items() if len(shape) > 1}
    del shapes["embed_tokens.weight"]
    kinds = {name: re.sub(r"^layers\.\d+\.|\.weight$", "", name) for name in shapes}
    chosen: set[str] = set()
    for target in targets:
        wanted = TARGET_GROUPS.get(target, (target,))
        found = {kind for kind in kinds.values() if any(f".{kind}".endswith(f".{one}") for one in wanted)}
        if not found:
            known = ", ".join((*TARGET_GROUPS, *dict.fromkeys(kinds.values())))
            raise ValueError(f"targets has {target!r}, which names no matrix of the model; known: {known}")
        chosen |= found
    return {name: shape for name, shape in shapes.items() if kinds[name] in chosen}


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
