"""`--endpoint`: a server that speaks the OpenAI protocol in the place of a model that is loaded here."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.cli import options

if TYPE_CHECKING:
    from redraft.evaluation.endpoint import Endpoint

TIMEOUT = 600.0

EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", help="A server's URL, like http://localhost:8000/v1.")
]
KeyOption = Annotated[str | None, typer.Option("--api-key-env", help="The environment variable with the server's key.")]

NAMES = {"max_new_tokens": "max_tokens", "temperature": "temperature", "seed": "seed"}
"""Sampler settings that the OpenAI protocol has a name for."""


@dataclass(frozen=True)
class Server:
    """Which server is asked for which model, with which fields of a request."""

    url: str
    model: str
    key: str | None
    settings: dict[str, Any]
    timeout: float

    def open(self) -> "Endpoint":
        """A client of it, for one event loop."""
        from redraft.evaluation.endpoint import Endpoint

        return Endpoint(self.url, self.model, key=self.key, settings=self.settings, timeout=self.timeout)


def server_of(asked: options.ModelOptions, url: str, key_variable: str | None, timeout: float = TIMEOUT) -> Server:
    """The server at `url`, with its first model where --model names none. ValueError for what it cannot be asked."""
    options.require_package("httpx2", "load")
    from redraft.evaluation.endpoint import check_url, first_model

    if (asked.device, asked.precision) != ("auto", "auto"):
        raise ValueError("--device and --precision are a server's own affair; leave them out with --endpoint")
    if unknown := sorted(asked.settings.keys() - NAMES.keys()):
        raise ValueError(
            f"a server can't be asked for {', '.join(unknown)}; with --endpoint there are {', '.join(NAMES)}"
        )
    key = None
    if key_variable is not None and not (key := os.environ.get(key_variable)):
        raise ValueError(f"--api-key-env names {key_variable}, but no such variable is set")
    check_url(url)
    # "bundled" is what --model says when nobody gave it.
    model = asked.model if asked.model != "bundled" else first_model(url, key=key, timeout=timeout)
    return Server(url, model, key, {NAMES[name]: value for name, value in asked.settings.items()}, timeout)
