"""A recipe: everything that defines a training run, as one value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn
from torch.optim import Optimizer

from redraft.diffusion.settings import SamplerSettings
from redraft.model.config import ModelConfig
from redraft.model.transformer import Transformer
from redraft.training.data.examples import DEFAULT_SAMPLER, Example, ExampleSource
from redraft.training.initialization import initialize
from redraft.training.objective import Losses, losses
from redraft.training.optimizer import make_optimizer
from redraft.training.run.answers import Texts
from redraft.training.run.state import RunFolder
from redraft.training.settings import LoRASettings, TrainingSettings
from redraft.training.validation import Validator, make_validator


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on, and the examples that it is validated on (none: it is not validated).

    `describe` says where the examples of a step come from, for error messages. `texts` are those of `held_out`, for the
    run's report; None: it shows no answers.
    """

    examples: ExampleSource
    held_out: Sequence[Example] = ()
    describe: Callable[[int], str] | None = None
    texts: Texts | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and how to train it.

    data: writes the companion files of the run's checkpoints into its folder and returns the data. settings: learning
    rate, noise, batch and so on. sampler: the settings that unrolling and validation generate with. objective: called
    as `losses` is. validation: called as `make_validator` is, with the held-out examples. optimizer: makes an optimizer
    whose groups have a `factor` for the learning rate. initialize: draws the weights of a new model from a seed. lora:
    the adapter that is trained beside the model, whose weights then stay as they are; None: all weights are trained.
    identity: what a run's folder is reserved for; a folder that holds a run with other values is refused.
    """

    model: ModelConfig
    settings: TrainingSettings
    data: Callable[[RunFolder], TrainingData]
    sampler: SamplerSettings = DEFAULT_SAMPLER
    objective: Callable[..., Losses] = losses
    validation: Callable[..., Validator] = make_validator
    optimizer: Callable[[nn.Module, TrainingSettings], Optimizer] = make_optimizer
    initialize: Callable[[Transformer, int], None] = initialize
    lora: LoRASettings | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
