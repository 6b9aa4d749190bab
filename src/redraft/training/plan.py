"""The plan of a fine-tuning run: its settings follow from the number of rows, unless they are given."""

import math
from typing import Any

from redraft.model.config import ModelConfig
from redraft.model.linear.quantized import Form, is_quantized
from redraft.training.run import processes
from redraft.training.settings import LoRASettings, TrainingSettings, lora_targets, proven_settings
from redraft.utils.words import counted
from redraft.weights.memory import check_available

MAX_EPOCHS = 1_000_000
REPLAY_SHARE, MAX_REPLAY = 0.2, 0.9
"""Of each step's examples, where it is known what the checkpoint was trained on."""
MAX_VALIDATION_SHARE = 0.1
"""Of a run's time."""
ANSWER_COST = 4
"""A validation's answer takes about as long as training on so many examples, if it needs many denoising steps."""
TELLING_ROWS, MAX_VALIDATIONS = 50, 5
"""With so many rows to answer, a run validates more often than once at the end, at most so often."""
BATCH_SIZE = 8
FEW_ROWS, FEW_ROWS_STEPS, GROWTH = 24, 80, 0.107
"""So few rows take so many steps; eight times as many take a quarter more steps, and each row is read once at least."""
FINETUNING = {
    "batch_size": BATCH_SIZE, "learning_rate": 6e-4, "decay_share": 0.6, "prompt_weight": 0.0, "unrolling_steps": 1,
    "row_block": 1,
}  # fmt: skip
"""What fine-tuning changes of the settings that the bundled model was trained with. Their four canvases of an example,
Muon and unrolling stay: without them the encoder learns the task as fast, but the denoiser does not."""
LORA_FINETUNING = {
    **FINETUNING, "learning_rate": 2e-3, "betas": (0.95, 0.99), "weight_decay": 0.0,
}  # fmt: skip
"""The same for an adapter. Its matrices train with Muon too, at a higher rate: after one epoch of 190 mails (docs) the
canvas loss was half of what AdamW reached, and the encoder's a third."""


def plan_settings(
    rows: int,
    *,
    held_out: int,
    replay: float = 0.0,
    epochs: float | None = None,
    is_lora: bool = False,
    **overrides: Any,
) -> TrainingSettings:
    """Returns the settings for training on `rows` rows and validating on at most `held_out` others.

    A share `replay` of each step's examples is not of the rows. epochs: how often each row is trained on, unless
    `steps` is among the overrides; None: more often, the fewer rows there are. ValueError for numbers out of range, and
    for validation settings if there is nothing to validate on.
    """
    if epochs is not None and not 0 < epochs <= MAX_EPOCHS:
        raise ValueError(f"epochs is {epochs}, must be above 0 and at most {MAX_EPOCHS:,}")
    if not held_out and any(overrides.get(name) for name in ("validate_every", "patience", "distill_steps")):
        raise ValueError(
            "there are no rows to validate on: give others to validate on, or at least 20 different prompts"
        )
    settings = {**(LORA_FINETUNING if is_lora else FINETUNING), **overrides}
    # A batch size that is out of range is refused below.
    size = max(1, settings["batch_size"])
    if epochs is None:
        needed = max(rows, BATCH_SIZE * FEW_ROWS_STEPS * (1 - REPLAY_SHARE) * (rows / FEW_ROWS) ** GROWTH)
    else:
        needed = rows * epochs
    # Examples that are replayed are not of the rows.
    settings.setdefault("steps", math.ceil(needed / (size * (1 - replay))))
    steps = int(settings["steps"])
    settings.setdefault("warmup_steps", min(10, steps // 10))
    answers = int(steps * size * MAX_VALIDATION_SHARE / ANSWER_COST)
    each = max(1, min(held_out, answers))
    settings.setdefault("validation_examples", each)
    settings.setdefault("validation_answers", min(each, max(1, settings["validation_examples"])))
    # A handful of rows cannot tell steps apart; by chance it would choose one whose rate has not fallen to zero.
    validations = min(MAX_VALIDATIONS, answers // each) if each >= TELLING_ROWS else 1
    settings.setdefault("validate_every", math.ceil(steps / validations) if held_out else 0)
    return proven_settings(**settings)


def check_memory(config: ModelConfig, lora: LoRASettings | None = None, bits: int | None = None) -> None:
    """Raises ValueError if what training keeps of every weight exceeds the free memory.

    Of a run on several machines, each has its share. That is the weight, in float32 or `bits`; of what is trained its
    gradient and the optimizer's two averages too, and of a whole model the copy that is validated. The activations of a
    step come on top.
    """
    shapes = config.parameter_shapes()
    few = {name: shape for name, shape in shapes.items() if bits is not None and is_quantized(name)}
    needed = 4 * sum(math.prod(shape) for name, shape in shapes.items() if name not in few)
    needed += sum(Form.of(shape, bits).num_bytes for shape in few.values() if bits is not None)
    if lora is None:
        needed, way_out = 5 * needed, "train an adapter, or choose a smaller model"
    else:
        adapted = lora_targets(config, lora.targets).values()
        ranks = sum(math.prod(stack) * lora.rank * (rows + columns) for *stack, rows, columns in adapted)
        needed += 4 * 4 * ranks
        way_out = (
            "choose a smaller model" if bits else "quantize the base (redraft quantize), or choose a smaller model"
        )
    check_available(
        math.ceil(needed * processes.share_here()), "training this model, with gradients and optimizer,", way_out
    )


def check_replay(replay: float) -> None:
    """Raises ValueError for a share of replayed examples that is out of range."""
    if not 0 <= replay <= MAX_REPLAY:
        raise ValueError(f"replay is {replay}, must be at least 0 and at most {MAX_REPLAY}")


def describe_plan(rows: int, settings: TrainingSettings, *, validated: int, replay: str) -> str:
    """Returns the plan in a line; `replay` says what is mixed in, `validated` how many rows are validated on."""
    every, answers = settings.validate_every, min(validated, settings.validation_answers)
    if not validated:
        validation = "no validation: it needs at least 20 different prompts"
    elif not every:
        validation = "no validation"
    else:
        on = counted(validated, "row") + ("" if answers == validated else f", answering {answers},")
        validation = f"validation on {on} {'at the end' if every >= settings.steps else f'every {every} steps'}"
    distilled = f" and {settings.distill_steps} that distil" if settings.distill_steps else ""
    return (
        f"{counted(rows, 'row')}: {counted(settings.steps, 'step')}{distilled} of "
        f"{counted(settings.batch_size, 'example')}, "
        f"rate {settings.learning_rate:g}, "
        f"{replay}, {validation}"
    )
