"""The server's settings, and the limits of what a request may ask for."""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redraft.generation.modes import ANSWERING_MODES, Mode

if TYPE_CHECKING:
    from redraft.server.routing.rules import RoutingRules

LOG_FORMATS = ("text", "json")

MAX_BODY_BYTES = 4 * 2**20
MAX_UPLOAD_BYTES = 200 * 2**20
MAX_HEADER_BYTES = 64 * 2**10

MAX_FIELDS = 1024
"""Fields of one object in a request's body."""

MAX_CHOICES = 128
MAX_STOPS, MAX_STOP_LENGTH = 64, 256
MAX_TOP_LOGPROBS = 20
MAX_ALTERNATIVES = 8

MAX_SAMPLER_SEED = 2**63 - 1
MAX_DRAWN_SEED = 2**53 - 1
"""Seeds that the server draws stay below: JavaScript's numbers hold no larger integers exactly."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The settings of one server. ValueError, naming value and range, for one that is out of range.

    api_key: the key that every route but /health/live requires; None requires none. owner_keys: others that are as
    good; each key has files and batches of its own. state: where those are kept, None for none. served_name: the
    model's name in the API. max_concurrent: answers in progress; max_queue: how many more may wait; max_context:
    tokens of prompt and answer together, at most the model's. adapter_root: the folder below which clients may load
    adapters from; None: they may not. cors_origins: web origins that may call. drain_seconds: how long SIGTERM lets
    running requests go on. mode: how answers are written where a request does not say; None as the model's card has
    it. rules: which way each of them goes; None for one way alone. port 0 picks a free one. header_seconds,
    body_seconds, send_seconds: how long a client may take to send its head, to send its body, and to receive what
    it is sent.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    owner_keys: tuple[str, ...] = field(default=(), repr=False)
    state: Path | None = None
    served_name: str | None = None
    max_concurrent: int = 16
    max_queue: int = 128
    max_context: int | None = None
    adapter_root: Path | None = None
    cors_origins: tuple[str, ...] = ()
    log_format: str = LOG_FORMATS[0]
    log_prompts: bool = False
    drain_seconds: float = 30.0
    mode: Mode | None = None
    rules: "RoutingRules | None" = None
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    send_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65_535),
            ("max_concurrent", 1, 4096),
            ("max_queue", 0, 100_000),
            ("drain_seconds", 0, 86_400),
        ):
            value: Any = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, must lie between {low} and {high}")
        if self.log_format not in LOG_FORMATS:
            raise ValueError(f"log_format is {self.log_format!r}, must be {' or '.join(LOG_FORMATS)}")
        if self.mode not in (None, *ANSWERING_MODES):
            raise ValueError(f"mode is {self.mode!r}, must be one of {', '.join(ANSWERING_MODES)}")
        if self.owner_keys and self.api_key is None:
            raise ValueError("owner_keys need an api_key: without one nobody needs a key")
        if not all(re.fullmatch(r"[!-~]+", key) for key in self.keys):
            raise ValueError("the API key must consist of visible ASCII characters, without spaces, and not be empty")
        if self.served_name is not None and not self.served_name.strip():
            raise ValueError("served_name is empty; leave it out, or give the model a name")
        if self.max_context is not None and self.max_context < 1:
            raise ValueError(f"max_context is {self.max_context}, must be at least 1")
        if self.adapter_root is not None and not self.adapter_root.is_dir():
            raise ValueError(f"adapter_root is {str(self.adapter_root)!r}, which is not a folder")
        for origin in self.cors_origins:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise ValueError(f"the origin {origin!r} must be like https://example.org, or *")

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that let a request in; none where no key is asked for."""
        return () if self.api_key is None else (self.api_key, *self.owner_keys)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def max_held(self) -> int:
        """The number of answers held at any time, in progress or waiting."""
        return self.max_concurrent + self.max_queue
