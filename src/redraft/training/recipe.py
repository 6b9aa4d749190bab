"""A recipe: everything that defines a training run, as one value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch.optim import Optimizer

from redraft.diffusion.settings import SamplerSettings
from redraft.model.config import ModelConfig
from redraft.model.transformer import Transformer
from redraft.training.data.examples import DEFAULT_SAMPLER, ExampleSource
from redraft.training.objective import Losses, losses
from redraft.training.optimizer import make_optimizer
from redraft.training.run.state import RunFolder
from redraft.training.settings import TrainingSettings
from redraft.training.validation import Validator


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on, and how it is validated (None: not at all).

    `describe` says where the examples of a step come from, for error messages.
    """

    examples: ExampleSource
    validate: Validator | None = None
    describe: Callable[[int], str] | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and how to train it.

    data: writes the companion files of the run's checkpoints into its folder and returns the data. settings: learning
    rate, noise, batch and so on. sampler: the settings that unrolling and validation generate with. objective: called
    as `losses` is. optimizer: makes an optimizer whose groups have a `factor` for the learning rate. identity: what a
    run's folder is reserved for; a folder that holds a run with other values is refused.
    """

    model: ModelConfig
    settings: TrainingSettings
    data: Callable[[RunFolder], TrainingData]
    sampler: SamplerSettings = DEFAULT_SAMPLER
    objective: Callable[..., Losses] = losses
    optimizer: Callable[[Transformer, TrainingSettings], Optimizer] = make_optimizer
    identity: Mapping[str, str] = field(default_factory=dict)
