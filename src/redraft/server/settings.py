"""What a server is told when it is started, and the bounds that nobody needs to change."""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

LOG_FORMATS = ("text", "json")

BODY_BYTES = 4 * 2**20
"""The longest body of a request."""

FIELDS = 1024
"""The most fields of one object in a body."""

HEADER_BYTES = 64 * 2**10
"""The longest head of a request."""

HEADER_SECONDS, BODY_SECONDS, SEND_SECONDS = 10.0, 30.0, 60.0
"""How long a client may take for its head, for its body, and to take what it is sent."""

CHOICES, STOPS, STOP_CHARACTERS, TOP, ALTERNATIVES = 128, 4, 256, 20, 8
"""The most of each that one request may ask for."""

LARGEST_SEED = 2**53 - 1
"""Seeds that are drawn stay below: JavaScript's numbers hold no larger ones whole."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """ValueError, naming value and range, for what cannot be.

    api_key: what every route but /health/live wants to be shown; None wants nothing. served_name: the model's name in
    the API. max_concurrent: requests in work; max_queue: how many more may wait; max_context: tokens of prompt and
    answer together, at most the model's. cors_origins: web pages elsewhere that may call. drain_seconds: how long
    SIGTERM lets what is in work go on. port 0 takes a free one.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    served_name: str | None = None
    max_concurrent: int = 16
    max_queue: int = 128
    max_context: int | None = None
    cors_origins: tuple[str, ...] = ()
    log_format: str = LOG_FORMATS[0]
    log_prompts: bool = False
    drain_seconds: float = 30.0

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
        if self.api_key is not None and not re.fullmatch(r"[!-~]+", self.api_key):
            raise ValueError("the API key must be of visible ASCII characters, without spaces, and not be empty")
        if self.served_name is not None and not self.served_name.strip():
            raise ValueError("served_name is empty; leave it out, or give the model a name")
        if self.max_context is not None and self.max_context < 1:
            raise ValueError(f"max_context is {self.max_context}, must be at least 1")
        for origin in self.cors_origins:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise ValueError(f"the origin {origin!r} must be like https://example.org, or *")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def places(self) -> int:
        """Requests that are held at any time, in work or waiting."""
        return self.max_concurrent + self.max_queue
