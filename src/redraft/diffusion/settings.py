"""Sampler settings of one request, and the one table of their names, ranges and help.

`SamplerSettings` is composed of rules that check themselves. Users say flat names ("entropy_bound"); `SETTINGS` says
which field of which rule each one is. The command line, the API, its model list and the playground are made from it.
Imports no torch.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypedDict

from redraft.diffusion.acceptance import Acceptance, EntropyBound, LinearQuota
from redraft.diffusion.schedule import LinearTemperature
from redraft.diffusion.stopping import EveryPositionConfident, StableAndConfident, Stopping

MAX_SEED = 2**63 - 1

RULES: dict[str, dict[str, type]] = {
    "schedule": {"linear": LinearTemperature},
    "acceptance": {"entropy_bound": EntropyBound, "linear_quota": LinearQuota},
    "stopping": {"stable_and_confident": StableAndConfident, "every_position_confident": EveryPositionConfident},
}
"""The parts of the settings that are rules, and the name of each rule that there is for it."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A row of the table: a flat name and what may be said for it.

    field: the field of SamplerSettings that it sets, or "part.field" of a rule. minimum and maximum are allowed values
    themselves, but for `above`, a bound that is not. choices: the values of a name. A flat name that is_optional may
    be None. belongs_to_request: it makes one answer unlike another, and no checkpoint has a default for it.
    """

    name: str
    type: type
    help: str
    field: str = ""
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    is_optional: bool = False
    belongs_to_request: bool = False

    def convert(self, value: object) -> Any:
        """Returns a value that can be said for this setting as Python's own type: whole floats serve as integers.

        Raises ValueError, naming value and range, for any other.
        """
        if value is None and self.is_optional:
            return None
        number = _converted(value, self.type)
        if number is None:
            raise ValueError(f"{self.name} is {value!r}, must be {_TYPES[self.type]}")
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name} is {value!r}, must be one of {', '.join(self.choices)}")
        low, high = self.minimum, self.maximum
        if low is not None and high is not None and not low <= number <= high:
            raise ValueError(f"{self.name} is {value}, must lie between {low} and {high}")
        if low is not None and number < low:
            raise ValueError(f"{self.name} is {value}, must be at least {low}")
        if self.above is not None and number <= self.above:
            raise ValueError(f"{self.name} is {value}, must be above {self.above}")
        return number

    @property
    def part(self) -> str:
        """The rule that it belongs to, or "" for a field of SamplerSettings itself."""
        return self.field.rpartition(".")[0]


# fmt: off
SETTINGS = (
    Setting(name="max_new_tokens", type=int, minimum=1, maximum=2**31 - 1,
            help="Cut the answer after this many tokens."),
    Setting(name="canvas_length", type=int, minimum=1, maximum=2**16, is_optional=True,
            help="Tokens written at a time."),
    Setting(name="steps", type=int, minimum=1, maximum=4096, help="At most this many denoising steps for each canvas."),
    Setting(name="t_min", type=float, field="schedule.t_min", help="Temperature at which the schedule ends."),
    Setting(name="t_max", type=float, field="schedule.t_max", help="Temperature at which the schedule starts."),
    Setting(name="temperature", type=float, minimum=0, maximum=100,
            help="Scales the schedule; 0 takes the likeliest token as the sample."),
    Setting(name="acceptance", type=str, choices=tuple(RULES["acceptance"]),
            help="Which positions keep their sample after a step."),
    Setting(name="entropy_bound", type=float, field="acceptance.bound", minimum=0,
            help="Accept more positions a step (higher) or fewer (lower)."),
    Setting(name="stopping", type=str, choices=tuple(RULES["stopping"]), help="When a canvas is finished early."),
    Setting(name="stability_threshold", type=int, field="stopping.stability", minimum=0,
            help="Stop only when the draft has not changed for this many steps."),
    Setting(name="confidence_threshold", type=float, field="stopping.confidence", above=0,
            help="Stop only when the mean entropy is below this many nats."),
    Setting(name="entropy_limit", type=float, field="stopping.limit", above=0,
            help="Stop when no position's entropy is above this many nats."),
    Setting(name="seed", type=int, minimum=0, maximum=MAX_SEED, is_optional=True, belongs_to_request=True,
            help="The same seed gives the same answer; without one, one is drawn."),
    Setting(name="index", type=int, minimum=0, maximum=2**31 - 1, belongs_to_request=True,
            help="Which of the answers to one prompt and seed this is, from 0."),
)
# fmt: on


class SamplerArguments(TypedDict, total=False):
    """The sampler settings as keyword arguments, for editors and type checkers; `SETTINGS` explains them."""

    max_new_tokens: int
    canvas_length: int | None
    steps: int
    t_min: float
    t_max: float
    temperature: float
    schedule: LinearTemperature
    acceptance: Literal["entropy_bound", "linear_quota"] | Acceptance
    entropy_bound: float
    stopping: Literal["stable_and_confident", "every_position_confident"] | Stopping
    stability_threshold: int
    confidence_threshold: float
    entropy_limit: float
    seed: int | None
    index: int


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How one answer is sampled. Raises ValueError, naming value and range, for anything out of range.

    max_new_tokens: where the answer is cut. canvas_length: None takes the model's. steps: most denoising steps of a
    canvas. temperature scales the schedule, and 0 takes the argmax as the sample while acceptance keeps the schedule.
    seed: None draws one, and the result reports it. index: i for the i-th of n answers to one prompt.
    """

    max_new_tokens: int = 2048
    canvas_length: int | None = None
    steps: int = 48
    temperature: float = 1.0
    schedule: LinearTemperature = field(default_factory=LinearTemperature)
    acceptance: Acceptance = field(default_factory=EntropyBound)
    stopping: Stopping = field(default_factory=StableAndConfident)
    seed: int | None = None
    index: int = 0

    def __post_init__(self) -> None:
        for part, known in RULES.items():
            if type(getattr(self, part)) not in known.values():
                names = " or ".join(kind.__name__ for kind in known.values())
                raise ValueError(f"{part} is {getattr(self, part)!r}, must be {names} (replace also takes their names)")
        for setting in SETTINGS:
            if not setting.part and setting.name not in RULES:
                object.__setattr__(self, setting.name, setting.convert(getattr(self, setting.name)))
        self.scaled_schedule  # noqa: B018 - checks itself

    @classmethod
    def of(cls, **flat: Any) -> "SamplerSettings":
        """The default settings with some flat names set. Raises what `replace` raises."""
        return cls().replace(**flat)

    @cached_property
    def scaled_schedule(self) -> LinearTemperature:
        factor = self.temperature or 1.0
        return LinearTemperature(t_min=self.schedule.t_min * factor, t_max=self.schedule.t_max * factor)

    def flat(self) -> dict[str, Any]:
        """Every flat name and its value; names of rules that are not chosen are left out."""
        found: dict[str, Any] = {}
        for setting in SETTINGS:
            part, _, name = setting.field.rpartition(".")
            if setting.name in RULES:
                rules = RULES[setting.name].items()
                found[setting.name] = next(key for key, rule in rules if rule is type(getattr(self, setting.name)))
            elif not part:
                found[setting.name] = getattr(self, setting.name)
            elif name in _fields_of(rule := getattr(self, part)):
                found[setting.name] = getattr(rule, name)
        return found

    def replace(self, **changes: Any) -> "SamplerSettings":
        """A copy with some settings changed, by their flat names or, for a rule, by the rule itself.

        A rule that is named anew starts with its own defaults. Raises ValueError for a name that is not a setting, a
        value out of range, and a name that belongs to a rule that is not chosen.
        """
        if unknown := sorted(changes.keys() - {setting.name for setting in SETTINGS} - {"schedule"}):
            known = ", ".join(setting.name for setting in SETTINGS)
            raise ValueError(f"unknown sampler setting {', '.join(map(repr, unknown))}; known: {known}")
        for setting in SETTINGS:
            if setting.name in changes and type(changes[setting.name]) not in RULES.get(setting.name, {}).values():
                changes[setting.name] = setting.convert(changes[setting.name])
        fields = {name: value for name, value in changes.items() if name in _fields_of(self)}
        for part, rules in RULES.items():
            chosen = changes.get(part, getattr(self, part))
            if isinstance(chosen, str) and chosen in rules:
                current = getattr(self, part)
                chosen = current if type(current) is rules[chosen] else rules[chosen]()
            if type(chosen) in rules.values():
                fields[part] = self._changed_rule(part, chosen, changes)
        return dataclasses.replace(self, **fields)

    @staticmethod
    def _changed_rule(part: str, rule: Any, changes: Mapping[str, Any]) -> Any:
        given = {}
        for setting in SETTINGS:
            if setting.part != part or setting.name not in changes:
                continue
            name, value = setting.field.rpartition(".")[2], changes[setting.name]
            if name not in _fields_of(rule):
                named = next(key for key, kind in RULES[part].items() if name in _fields_of(kind))
                raise ValueError(f"{setting.name} is {value}, which requires {part} {named!r}")
            given[name] = value
        return dataclasses.replace(rule, **given)

    @classmethod
    def from_generation_config(cls, config: Mapping[str, Any]) -> "SamplerSettings":
        """The settings a checkpoint ships in its generation_config.json; null and absent keys take the defaults.

        Keys that say nothing about sampling (token ids, versions, cache) are left to others. Raises ValueError for a
        sampler other than the entropy bound.
        """
        changes = {
            ours: config[theirs] for theirs, ours in GENERATION_CONFIG_KEYS.items() if config.get(theirs) is not None
        }
        sampler = config.get("sampler_config")
        if sampler is not None:
            name = sampler.get("_cls_name") if isinstance(sampler, Mapping) else None
            if name != SAMPLER_CLASS:
                raise ValueError(f"generation_config.json: sampler {name!r} is not known; known: {SAMPLER_CLASS}")
            if sampler.get("entropy_bound") is not None:
                changes["entropy_bound"] = sampler["entropy_bound"]
        return cls.of(**changes)

    def to_generation_config(self) -> dict[str, Any]:
        """The generation_config.json keys of these settings, as `from_generation_config` reads them.

        Seed, index and canvas length belong to a request and are left out. Raises ValueError for a rule or a
        temperature that the released layout has no key for.
        """
        flat, usual = self.flat(), SamplerSettings().flat()
        if any(flat[name] != usual[name] for name in ("acceptance", "stopping")) or self.temperature != 1:
            raise ValueError(
                f"generation_config.json has no key for acceptance {flat['acceptance']!r}, stopping "
                f"{flat['stopping']!r} and temperature {self.temperature}; it can hold {usual['acceptance']}, "
                f"{usual['stopping']} and 1"
            )
        config = {theirs: flat[ours] for theirs, ours in GENERATION_CONFIG_KEYS.items()}
        return config | {"sampler_config": {"_cls_name": SAMPLER_CLASS, "entropy_bound": flat["entropy_bound"]}}


SAMPLER_CLASS = "EntropyBoundSamplerConfig"
GENERATION_CONFIG_KEYS = {
    "max_new_tokens": "max_new_tokens",
    "max_denoising_steps": "steps",
    "t_min": "t_min",
    "t_max": "t_max",
    "stability_threshold": "stability_threshold",
    "confidence_threshold": "confidence_threshold",
}

_TYPES = {str: "a string", float: "a finite number", int: "an integer"}


def _converted(value: object, wanted: type) -> Any:
    """Returns a value as the type that is wanted, None where it is of another. Numbers may be numpy's."""
    if wanted is str:
        return value if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if wanted is int and isinstance(value, numbers.Integral):
        return int(value)
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number) or (wanted is int and not number.is_integer()):
        return None
    return int(number) if wanted is int else number


def _fields_of(rule: Any) -> set[str]:
    return {one.name for one in dataclasses.fields(rule)}
