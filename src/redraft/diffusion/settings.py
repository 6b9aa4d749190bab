"""Sampler settings of one request: validated here, used everywhere."""

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redraft.diffusion.acceptance import Acceptance, EntropyBound, LinearQuota
from redraft.diffusion.schedule import LinearTemperature
from redraft.diffusion.stopping import EveryPositionConfident, StableAndConfident, Stopping

MAX_SEED = 2**63 - 1
ACCEPTANCES = ("entropy_bound", "linear_quota")
STOPPINGS = ("stable_and_confident", "every_position_confident")


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How one answer is sampled. Raises ValueError, naming value and range, for anything out of range.

    max_new_tokens: where the answer is cut. canvas_length: None takes the model's. steps: most denoising steps of a
    canvas. t_min, t_max: the linear temperature schedule; `temperature` scales it, and 0 takes the argmax as the sample
    while acceptance keeps the schedule. entropy_bound goes with acceptance "entropy_bound"; stability_threshold and
    confidence_threshold with stopping "stable_and_confident"; entropy_limit with "every_position_confident".
    seed: None draws one, and the result reports it. choice: i for the i-th of n answers to one prompt.
    """

    max_new_tokens: int = 2048
    canvas_length: int | None = None
    steps: int = 48
    t_min: float = 0.4
    t_max: float = 0.8
    temperature: float = 1.0
    acceptance: str = "entropy_bound"
    entropy_bound: float = 0.1
    stopping: str = "stable_and_confident"
    stability_threshold: int = 1
    confidence_threshold: float = 0.005
    entropy_limit: float = 0.05
    seed: int | None = None
    choice: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            declared = field.type.__name__ if isinstance(field.type, type) else str(field.type)
            _check_type(field.name, getattr(self, field.name), declared)
        for name, low, high in (
            ("max_new_tokens", 1, 2**31 - 1),
            ("canvas_length", 1, 2**16),
            ("steps", 1, 4096),
            ("seed", 0, MAX_SEED),
            ("choice", 0, 2**31 - 1),
            ("temperature", 0, 100),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} is {value}, must lie between {low} and {high}")
        for name, known in (("acceptance", ACCEPTANCES), ("stopping", STOPPINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, must be one of {', '.join(known)}")
        # Built here for their own checks, the rules that are not chosen too: no bad value is passed over.
        self.schedule  # noqa: B018
        EntropyBound(bound=self.entropy_bound)
        StableAndConfident(stability=self.stability_threshold, confidence=self.confidence_threshold)
        EveryPositionConfident(limit=self.entropy_limit)

    @property
    def schedule(self) -> LinearTemperature:
        factor = self.temperature or 1.0
        return LinearTemperature(t_min=self.t_min * factor, t_max=self.t_max * factor)

    @property
    def acceptance_rule(self) -> Acceptance:
        if self.acceptance == "linear_quota":
            return LinearQuota()
        return EntropyBound(bound=self.entropy_bound)

    @property
    def stopping_rule(self) -> Stopping:
        if self.stopping == "every_position_confident":
            return EveryPositionConfident(limit=self.entropy_limit)
        return StableAndConfident(stability=self.stability_threshold, confidence=self.confidence_threshold)

    def flat(self) -> dict[str, Any]:
        """Stand-in."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def replace(self, **changes: Any) -> "SamplerSettings":
        """A copy with some settings changed; ValueError for a name that is not a setting."""
        if unknown := sorted(changes.keys() - {field.name for field in dataclasses.fields(self)}):
            names = ", ".join(field.name for field in dataclasses.fields(self))
            raise ValueError(f"unknown sampler setting {', '.join(map(repr, unknown))}; known: {names}")
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_generation_config(cls, config: Mapping[str, Any]) -> "SamplerSettings":
        """The settings a checkpoint ships in its generation_config.json; null and absent keys take the defaults.

        Keys that say nothing about sampling (token ids, versions, cache) are left to others; a sampler that is not the
        entropy bound is refused with ValueError.
        """
        changes = {
            ours: config[theirs] for theirs, ours in GENERATION_CONFIG_KEYS.items() if config.get(theirs) is not None
        }
        sampler = config.get("sampler_config")
        if sampler is not None:
            name = sampler.get("_cls_name") if isinstance(sampler, Mapping) else None
            if name != "EntropyBoundSamplerConfig":
                raise ValueError(
                    f"generation_config.json: sampler {name!r} is not known; known: EntropyBoundSamplerConfig"
                )
            if sampler.get("entropy_bound") is not None:
                changes["entropy_bound"] = sampler["entropy_bound"]
        return cls(**changes)

    def to_generation_config(self) -> dict[str, Any]:
        """The generation_config.json keys of these settings, as `from_generation_config` reads them.

        Seed, choice and canvas length belong to a request and are left out. ValueError for a rule or a temperature that
        the released layout has no key for.
        """
        if (self.acceptance, self.stopping) != (ACCEPTANCES[0], STOPPINGS[0]) or self.temperature != 1:
            raise ValueError(
                f"generation_config.json has no key for acceptance {self.acceptance!r}, stopping {self.stopping!r} "
                f"and temperature {self.temperature}; it can hold {ACCEPTANCES[0]}, {STOPPINGS[0]} and 1"
            )
        config: dict[str, Any] = {theirs: getattr(self, ours) for theirs, ours in GENERATION_CONFIG_KEYS.items()}
        config["sampler_config"] = {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": self.entropy_bound}
        return config


GENERATION_CONFIG_KEYS = {
    "max_new_tokens": "max_new_tokens",
    "max_denoising_steps": "steps",
    "t_min": "t_min",
    "t_max": "t_max",
    "stability_threshold": "stability_threshold",
    "confidence_threshold": "confidence_threshold",
}


def _check_type(name: str, value: object, declared: str) -> None:
    kind, _, optional = declared.partition(" | ")
    if value is None and optional == "None":
        return
    if kind == "str":
        good = isinstance(value, str)
    elif kind == "float":
        good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    else:
        good = isinstance(value, int) and not isinstance(value, bool)
    if not good:
        raise ValueError(f"{name} is {value!r}, must be {KINDS[kind]}")


KINDS = {"str": "a string", "float": "a finite number", "int": "an integer"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Stand-in until the table lands."""

    name: str
    type: type
    help: str
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    is_optional: bool = False
    belongs_to_request: bool = False


SETTINGS = (
    Setting(
        name="max_new_tokens", type=int, minimum=1, maximum=2**31 - 1, help="Cut the answer after this many tokens."
    ),
    Setting(
        name="canvas_length", type=int, minimum=1, maximum=2**16, is_optional=True, help="Tokens written at a time."
    ),
    Setting(name="steps", type=int, minimum=1, maximum=4096, help="At most this many denoising steps for each canvas."),
    Setting(name="t_min", type=float, help="Temperature at which the schedule ends."),
    Setting(name="t_max", type=float, help="Temperature at which the schedule starts."),
    Setting(name="temperature", type=float, minimum=0, maximum=100, help="Scales the schedule."),
    Setting(name="acceptance", type=str, choices=ACCEPTANCES, help="Which positions keep their sample after a step."),
    Setting(
        name="entropy_bound", type=float, minimum=0, help="Accept more positions a step (higher) or fewer (lower)."
    ),
    Setting(name="stopping", type=str, choices=STOPPINGS, help="When a canvas is finished early."),
    Setting(name="stability_threshold", type=int, minimum=0, help="Stop only when the draft has not changed."),
    Setting(name="confidence_threshold", type=float, above=0, help="Stop only when the mean entropy is below."),
    Setting(name="entropy_limit", type=float, above=0, help="Stop when no position's entropy is above this many nats."),
    Setting(name="seed", type=int, minimum=0, maximum=MAX_SEED, is_optional=True, belongs_to_request=True, help="S."),
    Setting(name="choice", type=int, minimum=0, maximum=2**31 - 1, belongs_to_request=True, help="C."),
)
