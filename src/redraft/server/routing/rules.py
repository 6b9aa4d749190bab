"""The rules of a router, read from a TOML file: the ways that requests may go, and which request goes which way."""

import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx2
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from redraft.client.stream import check_url
from redraft.generation.modes import Mode

MAX_RULES_BYTES = 2**20
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})
ENDPOINT_KEYS, LOCAL_KEYS = ("model", "key_env", "redraft", "timeout"), ("mode", "adapter")
CONDITIONS = ("models", "words", "pattern", "min_characters", "max_characters", "constraint")

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Names stand in a header and in labels of metrics."""


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from None
    return pattern


def _check_endpoint(url: str) -> str:
    return check_url(url, name="")


def _check_names(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("must be 1 to 64 letters, digits, '.', '_' and '-'")
    return name


Name = Annotated[str, AfterValidator(_check_names)]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1, strict=False)]


class _Table(BaseModel):
    """A table of the file: every key is known, and of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Way(_Table):
    """Where a request may go: to the served model, in a mode or with an adapter, or to another endpoint.

    endpoint: the URL of a server of OpenAI's protocol, which usually ends in /v1. model: what it calls the model, by
    default what the request asks for. key_env: the environment variable that has its key. redraft: whether it is a
    redraft server, which understands `canvas` and `strict` and says how far it trusts an answer. timeout: seconds
    without a byte. fallback: the way that a request goes after this one, where the probability that the answer is right
    is below min_trust or unknown, or, with on_failure, where there is no answer.
    """

    mode: Mode | None = None
    adapter: Text | None = None
    endpoint: Annotated[str, AfterValidator(_check_endpoint)] | None = None
    model: Text | None = None
    key_env: Text | None = None
    redraft: bool = False
    timeout: Annotated[float, Field(gt=0, le=86_400, strict=False)] = 600.0
    fallback: Name | None = None
    min_trust: Annotated[float, Field(gt=0, le=1, strict=False)] | None = None
    on_failure: bool = False

    @property
    def key(self) -> str | None:
        """The endpoint's key."""
        return None if self.key_env is None else os.environ[self.key_env]


class RoutingRule(_Table):
    """Which requests go one way: those for which all conditions that are given hold.

    models: names that requests ask for. words: texts of which the prompt has one, in upper or lower case. pattern: a
    regular expression that is found in it. min_characters, max_characters: how long the whole conversation may be.
    constraint: whether the answer is held to a form.
    """

    name: Name
    to: Name
    models: Texts | None = None
    words: Texts | None = None
    pattern: Annotated[str, AfterValidator(_check_pattern)] | None = None
    min_characters: Annotated[int, Field(ge=0)] | None = None
    max_characters: Annotated[int, Field(ge=0)] | None = None
    constraint: bool | None = None

    @property
    def conditions(self) -> Iterator[tuple[str, Any]]:
        """The conditions that are given."""
        return ((name, value) for name in CONDITIONS if (value := getattr(self, name)) is not None)


@dataclass(frozen=True)
class RoutingRules:
    """The rules of a file, in their order, and its ways by their names."""

    source: str
    rules: tuple[RoutingRule, ...]
    ways: Mapping[str, Way]

    def check_adapters(self, adapters: Collection[str]) -> None:
        """Raises ValueError for a way with an adapter that is not among these."""
        for name, way in self.ways.items():
            if way.adapter is not None and way.adapter not in adapters:
                known = f"there are {', '.join(map(repr, adapters))}" if adapters else "there are none"
                raise ValueError(
                    f"{self.source}: way {name!r}, adapter is {way.adapter!r}, which is not loaded; {known}: serve it "
                    f"with --adapter {way.adapter}=FOLDER, or change the way"
                )

    def check_address(self, host: str, port: int) -> None:
        """Raises ValueError for a way that leads to the address of the server that has these rules."""
        own = {host} | (LOOPBACK if host in LOOPBACK | ANY_ADDRESS else frozenset())
        for name, way in self.ways.items():
            url = httpx2.URL(way.endpoint or "")
            if url.host in own and (url.port or {"http": 80, "https": 443}.get(url.scheme)) == port:
                raise ValueError(
                    f"{self.source}: way {name!r}, endpoint is {way.endpoint!r}, this server's own address: requests "
                    "would go in a circle; leave endpoint out to answer with the model that is served"
                )

    def check_trust(self, *, is_calibrated: bool) -> None:
        """Raises ValueError for a bound on the trust in answers of a model that does not say how far it trusts them."""
        for name, way in self.ways.items():
            if way.min_trust is not None and way.endpoint is None and not is_calibrated:
                raise ValueError(
                    f"{self.source}: way {name!r}, min_trust is {way.min_trust:g}, but the model has no calibration, "
                    "so that no answer has a probability; leave min_trust out, or calibrate it with redraft eval trust"
                )


def read_rules(path: Path) -> RoutingRules:
    """Reads the rules of a file. Raises ValueError, with file, rule, key, value and the way out, for what is wrong."""
    source = str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{source}: cannot be read ({error.strerror}); --route takes a file of rules") from None
    if len(data) > MAX_RULES_BYTES:
        raise ValueError(f"{source}: has {len(data)} bytes, the limit is {MAX_RULES_BYTES}")
    try:
        found = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: is not UTF-8: byte {data[error.start]:#04x} at {error.start}") from None
    except ValueError as error:
        raise ValueError(f"{source}: is not valid TOML: {error}") from None
    if unknown := [name for name in found if name not in ("ways", "rules")]:
        raise ValueError(f"{source}: has no table {unknown[0]!r}; there are [ways.NAME] and [[rules]]")
    ways, rules = found.get("ways", {}), found.get("rules", [])
    if not isinstance(ways, dict) or not isinstance(rules, list) or not rules:
        raise ValueError(f"{source}: needs a table [ways.NAME] for each way, and at least one [[rules]]")
    made = RoutingRules(
        source,
        tuple(_made(RoutingRule, source, _rule_title(at, rule), rule) for at, rule in enumerate(rules, 1)),
        {_checked_name(source, name): _made(Way, source, f"way {name!r}", way) for name, way in ways.items()},
    )
    _check_rules(made)
    for name, way in made.ways.items():
        _check_way(made, name, way)
    return made


def _rule_title(number: int, rule: Any) -> str:
    name = rule.get("name") if isinstance(rule, dict) else None
    return f"rule {name!r}" if isinstance(name, str) else f"rule {number}"


def _checked_name(source: str, name: str) -> str:
    try:
        return _check_names(name)
    except ValueError as error:
        raise ValueError(f"{source}: way {name!r}: its name {error}") from None


TableT = TypeVar("TableT", Way, RoutingRule)


def _made(kind: type[TableT], source: str, title: str, given: Any) -> TableT:
    """Returns a table as an object. Raises ValueError about the first key that is wrong."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        if not key:
            raise ValueError(f"{source}: {title}: must be a table, is {given!r}") from None
        if first["type"] == "missing":
            raise ValueError(f"{source}: {title}: {key} is missing") from None
        if first["type"] == "extra_forbidden":
            raise ValueError(f"{source}: {title}: has no key {key!r}; it may have {_keys(kind)}") from None
        reason = first["msg"].removeprefix("Value error, ").replace("Input should", "must", 1).lstrip()
        shown = "" if repr(first["input"]) in reason else f" is {first['input']!r},"
        raise ValueError(f"{source}: {title}, {key}{shown} {reason}") from None


def _keys(kind: type[BaseModel]) -> str:
    return ", ".join(kind.model_fields)


def _check_rules(made: RoutingRules) -> None:
    names: set[str] = set()
    catches_all: str | None = None
    for rule in made.rules:
        title = f"{made.source}: rule {rule.name!r}"
        if rule.name in names:
            raise ValueError(f"{title}: two rules have this name; give each its own")
        names.add(rule.name)
        if catches_all is not None:
            raise ValueError(
                f"{title}: is never reached, since rule {catches_all!r} before it has no condition; move it to the end"
            )
        if rule.to not in made.ways:
            raise ValueError(f"{title}, to is {rule.to!r}, which is not a way of the file; {_known(made)}")
        if None not in (low := rule.min_characters, high := rule.max_characters) and low > high:  # type: ignore[operator]
            raise ValueError(
                f"{title}, min_characters is {low}, above max_characters {high}: no prompt is of that length"
            )
        if not any(rule.conditions):
            catches_all = rule.name


def _check_way(made: RoutingRules, name: str, way: Way) -> None:
    title = f"{made.source}: way {name!r}"
    given = way.model_fields_set
    for keys, is_wrong, needs in (
        (LOCAL_KEYS, way.endpoint is not None, "no endpoint: an endpoint answers in its own way"),
        (ENDPOINT_KEYS, way.endpoint is None, "an endpoint"),
        (("min_trust", "on_failure"), way.fallback is None, "a fallback to go to"),
    ):
        if is_wrong and (wrong := [key for key in keys if key in given]):
            raise ValueError(f"{title}, {wrong[0]} is {getattr(way, wrong[0])!r}: it needs {needs}")
    if way.min_trust is not None and way.endpoint is not None and not way.redraft:
        raise ValueError(
            f"{title}, min_trust is {way.min_trust:g}: only redraft's servers say how far they trust an answer; leave "
            "it out, or set redraft = true"
        )
    if way.key_env is not None and not os.environ.get(way.key_env):
        raise ValueError(f"{title}, key_env is {way.key_env!r}: the environment has no such variable, or an empty one")
    if way.fallback is None:
        return
    if way.fallback not in made.ways:
        raise ValueError(f"{title}, fallback is {way.fallback!r}, which is not a way of the file; {_known(made)}")
    if way.min_trust is None and not way.on_failure:
        raise ValueError(f"{title}, fallback is {way.fallback!r}: say when, with min_trust, on_failure = true or both")
    passed = [name]
    at: str | None = way.fallback
    while at is not None and at in made.ways:
        passed.append(at)
        if at in passed[:-1]:
            raise ValueError(
                f"{title}, fallback: the ways go in a circle, {' to '.join(passed)}; end one without a fallback"
            )
        at = made.ways[at].fallback


def _known(made: RoutingRules) -> str:
    return f"there are {', '.join(map(repr, made.ways))}" if made.ways else "it has none: add [ways.NAME]"
